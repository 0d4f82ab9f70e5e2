//! What a peer may send to the sockets of requesters and of writers: a stream of bytes. The first byte chooses the socket.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vss_api::fuzzing;
use vss_api::server::Face;

fuzz_target!(|bytes: &[u8]| {
    let Some((first, stream)) = bytes.split_first() else { return };
    let face = if first & 1 == 0 { Face::Requester } else { Face::Writer };
    fuzzing::calls(face, stream);
});
