// SPDX-License-Identifier: GPL-2.0 OR MIT OR Apache-2.0
//
// Marks the chunks of one range of sectors that are written. Why no write is missed: the doc of the crate (lib.rs).
// The maps and the layout of their values are those of layout.rs. Rebuild with `cargo xtask bpf`.

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual MIT/GPL";

// What is used of the kernel's structs. Their places are found when the programs are loaded (CO-RE).
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct gendisk {
	int major;
	int first_minor;
};
struct block_device {
	struct gendisk *bd_disk;
};
struct bvec_iter {
	__u64 bi_sector;
	unsigned int bi_size;
};
struct bio {
	struct bio *bi_next;
	struct block_device *bi_bdev;
	__u32 bi_opf;
	struct bvec_iter bi_iter;
	void *bi_private;
};
struct request_queue {
	struct gendisk *disk;
};
struct request {
	struct request_queue *q;
	__u32 cmd_flags;
	unsigned int __data_len;
	__u64 __sector;
	struct bio *bio;
};
#pragma clang attribute pop

// enum req_op: the lower 8 bits; an odd one may change what is on the medium.
#define OP_MASK 0xff
#define OP_CHANGES 1
#define OP_DISCARD 3
#define OP_SECURE_ERASE 5
#define OP_DRV_OUT 35

// Bios of one discard that are looked at: NVMe and virtio take 256 ranges at most.
#define DISCARD_BIOS 256

// Set by the loader.
const volatile __u32 cfg_major = 0;
const volatile __u32 cfg_minor = 0;
const volatile __u64 cfg_start = 0;
const volatile __u64 cfg_sectors = 0;
// Sectors of a chunk, and of a chunk of the recent marks, as powers of two.
const volatile __u32 cfg_shift = 0;
const volatile __u32 cfg_recent_shift = 0;
const volatile __u32 cfg_bio_based = 0;
// Bits: MARK_*. Always all of them, but for the tests that show what each is for.
const volatile __u32 cfg_marks = 0;

#define MARK_QUEUE 1
#define MARK_ISSUE 2
#define MARK_COMPLETION 4

struct counts {
	__u64 queued;
	__u64 issued;
	__u64 completed;
	__u64 unknown;
	__u64 hash_full;
	__u64 passthrough;
	__u64 unused[2];
};

struct control {
	__u64 epoch;
	__u64 is_balanced;
	__u64 base[8];
	// Of whoever takes the marks. The programs don't read it.
	__u64 stamp[2];
};

struct about {
	__u64 words[16];
};

struct range {
	__u64 start;
	__u64 sectors;
};

// One bit for each chunk that was written and not taken yet.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} bits SEC(".maps");

// One bit for each larger chunk that was queued in an even or in an odd epoch.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} recent_even SEC(".maps"), recent_odd SEC(".maps");

// One for each CPU, each a cache line of its own.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct counts);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct control);
} control SEC(".maps");

// For those who find the pins: what is traced, and how. The programs don't read it.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct about);
} about SEC(".maps");

// Where the bios under way began, of a device without requests: its driver may move bi_iter.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u64);
	__type(value, struct range);
} in_flight SEC(".maps");

static __always_inline int is_ours(struct gendisk *disk)
{
	return disk && (__u32)disk->major == cfg_major && (__u32)disk->first_minor == cfg_minor;
}

// Cuts the range down to ours, and makes it relative to it. False when nothing is left.
static __always_inline int clip(struct range *range, __u64 start, __u64 sectors)
{
	__u64 end = start + sectors, last = cfg_start + cfg_sectors;

	if (start < cfg_start)
		start = cfg_start;
	if (end > last)
		end = last;
	if (start >= end)
		return 0;
	range->start = start - cfg_start;
	range->sectors = end - start;
	return 1;
}

static __always_inline struct counts *counts(void)
{
	__u32 cpu = bpf_get_smp_processor_id();

	return bpf_map_lookup_elem(&counters, &cpu);
}

#define COUNT(field, number)                                              \
	do {                                                              \
		struct counts *mine = counts();                           \
		if (mine)                                                 \
			__sync_fetch_and_add(&mine->field, (number));     \
	} while (0)

static __always_inline void set_bits(__u64 *word, __u64 mask)
{
	if (word && (*(volatile __u64 *)word & mask) != mask)
		__sync_fetch_and_or(word, mask);
}

#define BITS 0
#define RECENT_EVEN 1
#define RECENT_ODD 2

static __always_inline void set_word(__u32 which, __u32 word, __u64 mask)
{
	if (which == BITS)
		set_bits(bpf_map_lookup_elem(&bits, &word), mask);
	else if (which == RECENT_EVEN)
		set_bits(bpf_map_lookup_elem(&recent_even, &word), mask);
	else
		set_bits(bpf_map_lookup_elem(&recent_odd, &word), mask);
}

struct whole_words {
	__u32 which;
	__u32 first;
};

static long set_whole_word(__u32 step, struct whole_words *words)
{
	set_word(words->which, words->first + step, ~0ull);
	return 0;
}

static __always_inline void mark(__u32 which, __u32 shift, const struct range *range)
{
	__u64 first = range->start >> shift, last = (range->start + range->sectors - 1) >> shift;
	__u64 head = ~0ull << (first & 63), tail = ~0ull >> (63 - (last & 63));
	__u32 word = first >> 6, end = last >> 6;

	if (word == end) {
		set_word(which, word, head & tail);
		return;
	}
	set_word(which, word, head);
	set_word(which, end, tail);
	if (end - word > 1) {
		struct whole_words words = { .which = which, .first = word + 1 };

		bpf_loop(end - word - 1, set_whole_word, &words, 0);
	}
}

static __always_inline void mark_recent(const struct range *range)
{
	__u32 zero = 0;
	struct control *now = bpf_map_lookup_elem(&control, &zero);

	if (now)
		mark(now->epoch & 1 ? RECENT_ODD : RECENT_EVEN, cfg_recent_shift, range);
}

#define QUEUED 0
#define ISSUED 1
#define COMPLETED 2

// Counts and marks a range that clip() gave. A function of its own that is not static, so that the kernel verifies it once
// and not at each of its calls.
__noinline int note(__u32 event, __u64 start, __u64 sectors)
{
	struct range range = { start, sectors };

	if (!sectors)
		return 0;
	if (event == QUEUED) {
		COUNT(queued, sectors);
		mark_recent(&range);
		if (cfg_marks & MARK_QUEUE)
			mark(BITS, cfg_shift, &range);
	} else if (event == ISSUED) {
		COUNT(issued, sectors);
		if (cfg_marks & MARK_ISSUE)
			mark(BITS, cfg_shift, &range);
	} else {
		struct counts *mine = counts();

		if (mine) {
			// Its result is used, so that it is a full barrier on every processor: no bit is looked at before
			// the completion was.
			__u64 before = __sync_fetch_and_add(&mine->completed, sectors);

			asm volatile("" : : "r"(before) : "memory");
		}
		if (cfg_marks & MARK_COMPLETION)
			mark(BITS, cfg_shift, &range);
	}
	return 0;
}

SEC("tp_btf/block_bio_queue")
int on_bio_queue(__u64 *ctx)
{
	struct bio *bio = (struct bio *)ctx[0];
	__u32 op = bio->bi_opf & OP_MASK;
	struct range range = { 0, 0 };

	if (!(op & OP_CHANGES) || !is_ours(bio->bi_bdev->bd_disk))
		return 0;
	if (clip(&range, bio->bi_iter.bi_sector, bio->bi_iter.bi_size >> 9))
		note(QUEUED, range.start, range.sectors);
	if (cfg_bio_based) {
		__u64 key = (__u64)bio;

		// Also a bare flush and what lies outside, with no sectors: a completion that is not remembered is
		// always one whose beginning was not seen.
		if (bpf_map_update_elem(&in_flight, &key, &range, BPF_ANY))
			COUNT(hash_full, 1);
	}
	return 0;
}

// A discard of several bios is one request of ranges that need not touch.
#define EACH_BIO(rq, event)                                                                    \
	do {                                                                                   \
		struct bio *bio = (rq)->bio;                                                   \
		for (int number = 0; number < DISCARD_BIOS && bio; number++) {                 \
			struct range range;                                                    \
			if (clip(&range, bio->bi_iter.bi_sector, bio->bi_iter.bi_size >> 9))   \
				note(event, range.start, range.sectors);                       \
			bio = bio->bi_next;                                                    \
		}                                                                              \
	} while (0)

static __always_inline int is_discard(__u32 op)
{
	return op == OP_DISCARD || op == OP_SECURE_ERASE;
}

SEC("tp_btf/block_rq_issue")
int on_rq_issue(__u64 *ctx)
{
	struct request *rq = (struct request *)ctx[0];
	__u32 op = rq->cmd_flags & OP_MASK;
	struct range range;

	if (!(op & OP_CHANGES) || !is_ours(rq->q->disk))
		return 0;
	if (op == OP_DRV_OUT) {
		COUNT(passthrough, 1);
		return 0;
	}
	if (is_discard(op))
		EACH_BIO(rq, ISSUED);
	else if (clip(&range, rq->__sector, rq->__data_len >> 9))
		note(ISSUED, range.start, range.sectors);
	return 0;
}

SEC("tp_btf/block_rq_complete")
int on_rq_complete(__u64 *ctx)
{
	struct request *rq = (struct request *)ctx[0];
	unsigned int bytes = (unsigned int)ctx[2];
	__u32 op = rq->cmd_flags & OP_MASK;
	struct range range;

	if (!(op & OP_CHANGES) || !is_ours(rq->q->disk))
		return 0;
	if (op == OP_DRV_OUT) {
		COUNT(passthrough, 1);
		return 0;
	}
	// The second end of a request that began with a flush or ends with one has no bytes.
	if (!bytes)
		return 0;
	if (is_discard(op))
		EACH_BIO(rq, COMPLETED);
	else if (clip(&range, rq->__sector, bytes >> 9))
		note(COMPLETED, range.start, range.sectors);
	return 0;
}

SEC("tp_btf/block_bio_complete")
int on_bio_complete(__u64 *ctx)
{
	struct bio *bio = (struct bio *)ctx[1];
	__u32 op = bio->bi_opf & OP_MASK;
	struct range range, *began;
	__u64 key = (__u64)bio;
	int has_range;

	if (!(op & OP_CHANGES) || !bio->bi_bdev || !is_ours(bio->bi_bdev->bd_disk))
		return 0;
	has_range = clip(&range, bio->bi_iter.bi_sector, bio->bi_iter.bi_size >> 9);
	if (!cfg_bio_based) {
		// It ended before it became a request (out of tags and told not to wait, for example).
		if (has_range)
			note(COMPLETED, range.start, range.sectors);
		return 0;
	}
	began = bpf_map_lookup_elem(&in_flight, &key);
	if (began) {
		range = *began;
		bpf_map_delete_elem(&in_flight, &key);
		if (range.sectors)
			note(COMPLETED, range.start, range.sectors);
		return 0;
	}
	// Where it is now, if that says anything; what counts is that it is known to be not known.
	if (has_range)
		mark(BITS, cfg_shift, &range);
	// The front of a bio that was cut in two: the bio that was seen queued is its parent, and ends after it.
	key = (__u64)bio->bi_private;
	began = bpf_map_lookup_elem(&in_flight, &key);
	if (began && (!has_range || (range.start >= began->start &&
				     range.start + range.sectors <= began->start + began->sectors)))
		return 0;
	COUNT(unknown, 1);
	return 0;
}
