//! Calls with `more`: many answers to one call, for those who want them.

mod support;

use serde_json::{Value, json};
use std::time::Duration;
use support::{Door, Raw, Seen, call, quick};
use vss_api::client::{Client, ClientError};
use vss_api::management::{Call, EventList, ListEvents};

fn follow(count: u64) -> Value {
    let mut message = call("Management.ListEvents", json!({"after": count}));
    message["more"] = json!(true);
    message
}

#[test]
fn answers_come_one_after_another_and_the_last_says_so() {
    let door = Door::open();
    let client = Client::connect(&door.requester).unwrap();
    let follower = client.follow::<EventList>(&Call::ListEvents(ListEvents { after: Some(3) })).unwrap();
    let lost: Vec<u64> = follower.map(|answer| answer.unwrap().lost).collect();
    assert_eq!(lost, [1, 2, 3, 4]);
}

#[test]
fn on_the_wire_all_but_the_last_continue_and_later_calls_wait() {
    let door = Door::open();
    let mut peer = Raw::connect(&door.requester);
    peer.send(&follow(2));
    peer.send(&quick());
    for (lost, continues) in [(1, true), (2, true), (3, false)] {
        let answer = peer.receive().unwrap();
        assert_eq!(answer["parameters"]["lost"], lost);
        assert_eq!(answer.get("continues"), continues.then_some(&json!(true)), "{answer}");
    }
    assert_eq!(peer.receive().unwrap()["parameters"], json!({"shadows": []}));
}

#[test]
fn without_more_there_is_one_answer_and_with_it_other_calls_have_one_too() {
    let door = Door::open();
    let mut peer = Raw::connect(&door.requester);
    assert_eq!(peer.ask(&call("Management.ListEvents", json!({"after": 3}))), json!({"parameters": {}}));
    let mut with_more = quick();
    with_more["more"] = json!(true);
    assert_eq!(peer.ask(&with_more), json!({"parameters": {"shadows": []}}));
    let mut oneway = follow(3);
    oneway["oneway"] = json!(true);
    peer.send(&oneway);
    assert_eq!(peer.ask(&quick()), json!({"parameters": {"shadows": []}}));
}

#[test]
fn one_that_reads_slowly_is_kept_and_one_that_leaves_is_noticed() {
    let door = Door::open();
    let mut slow = Raw::connect(&door.requester);
    // More than the socket takes; and nothing is read for longer than the 5 s after which others are dropped.
    slow.send(&follow(50_000));
    std::thread::sleep(Duration::from_secs(6));
    for expected in 1..=50_000 {
        assert_eq!(slow.receive().unwrap()["parameters"]["lost"], expected);
    }
    let mut gone = Raw::connect(&door.requester);
    gone.send(&follow(u64::from(u32::MAX)));
    assert!(gone.receive().is_some());
    drop(gone);
    door.wait_for_end();
    // The answers behind it end with it: the door shuts at once.
    door.shut();
    while let Ok(seen) = door.seen.recv_timeout(Duration::from_secs(1)) {
        assert!(!matches!(seen, Seen::Connected(_)), "{seen:?}");
    }
}

#[test]
fn a_follower_hears_of_the_end_of_the_connection_and_waits_no_longer_than_told() {
    let door = Door::open();
    let call = Call::ListEvents(ListEvents { after: Some(u64::from(u32::MAX)) });
    let mut follower = Client::connect(&door.requester).unwrap().follow::<EventList>(&call).unwrap();
    assert_eq!(follower.next().unwrap().unwrap().lost, 1);
    door.shut();
    let end = follower.find_map(Result::err).unwrap();
    assert!(matches!(end, ClientError::Io(_)), "{end:?}");
    assert!(follower.next().is_none());
}
