//! The bytes of one example of each kind. A change here is a change of the protocol: nodes that
//! run now would not understand it.

use super::examples;
use crate::types::CloseReason;
use crate::wire::convert::{REASONS, reason_code, reason_of};
use crate::wire::{decode_frame, encode_frame};

const GOLDEN: [(&str, &str); 15] = [
    (
        "hello",
        "\
         0ac0010abd010a0b6f72646572732d70726f64100118022880808080802030808080053a97010a20ed4928c6\
         28d1c2c6eae90338905995612959273a5c63f93636c14614ac8737d110ac021880d095ffbc31221670656572\
         312e6578616d706c652e636f6d3a35303031220f5b323030313a6462383a3a315d3a372a40b6955e5139117c\
         20819122fe02fb2fbe6e5367284fee66fdea33252d38f2eae729c62998724e8f09ef823a709a92fde87ef1cc\
         d680219fc09f054835b88b7b094204c0000201\
         ",
    ),
    ("goodbye", "0a081206080910b0ea01"),
    ("ping", "0a0b1a09090807060504030201"),
    ("pong", "0a022200"),
    ("peers_request", "0a042a020820"),
    (
        "peers",
        "\
         0af30132f0010a6e0a20ed4928c628d1c2c6eae90338905995612959273a5c63f93636c14614ac8737d110ac\
         021880d095ffbc312a404eb5dc9fe2f51453e2bba5ded470e1f17d26d09e27b72a05f99e50efc76e4f4ad562\
         995ab2a61b9fe221e0baedba6f465c946debb0d4cf31b0d0f6444cabda080a7e0a20ed4928c628d1c2c6eae9\
         0338905995612959273a5c63f93636c14614ac8737d110ac021880d095ffbc31220e3132372e302e302e313a\
         353030312a403e5adba4e0206e01979249d3bdbb115a85d57a185724be5d03dbda6d1871746b44cdee8bb421\
         bce7f619c5f66c55c26fc61e89dd5b4af5fd21fa8b6457a82d02\
         ",
    ),
    (
        "announce",
        "\
         0a4e3a4c0a400101010101010101010101010101010101010101010101010101010101010101020202020202\
         020202020202020202020202020202020202020202020202020212038008001a0302ac02\
         ",
    ),
    (
        "want",
        "\
         0a4a42480a400101010101010101010101010101010101010101010101010101010101010101020202020202\
         0202020202020202020202020202020202020202020202020202120400808004\
         ",
    ),
    (
        "missing",
        "\
         0a244a220a200303030303030303030303030303030303030303030303030303030303030303\
         ",
    ),
    (
        "push",
        "\
         0abf0152bc010803126f736f726368612d706565722f74780001070707070707070707070707070707070707\
         0707070707070707070707070707e803000000000000d0070000000000000500000000000000ea8f163db386\
         82925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f066f72646572731a40090909090909090909\
         0909090909090909090909090909090909090909090909090909090909090909090909090909090909090909\
         0909090909090909090909220568656c6c6f\
         ",
    ),
    (
        "piece",
        "\
         0a9e015a9b010a20040404040404040404040404040404040404040404040404040404040404040410808004\
         1a057069656365226c126a736f726368612d706565722f747800010707070707070707070707070707070707\
         070707070707070707070707070707e803000000000000d00700000000000001000000000000003ae7d805f6\
         789a6402acb70ad4096a85a56bf6804eaf25c0493ac697548d30b50174\
         ",
    ),
    (
        "duplicate",
        "\
         0a4462420a400505050505050505050505050505050505050505050505050505050505050505060606060606\
         0606060606060606060606060606060606060606060606060606\
         ",
    ),
    (
        "early",
        "\
         0a246a220a200707070707070707070707070707070707070707070707070707070707070707\
         ",
    ),
    ("stored", "0a027200"),
    ("resync", "0a027a00"),
];

#[test]
fn the_encoding_of_every_kind_is_locked() {
    for (message, (kind, hex)) in examples().into_iter().zip(GOLDEN) {
        let frame = encode_frame(std::slice::from_ref(&message));
        let shown = frame.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
        assert_eq!((message.kind(), shown.as_str()), (kind, hex));
        assert_eq!(decode_frame(frame).unwrap(), [message]);
    }
}

#[test]
fn every_reason_has_a_code_of_its_own() {
    for (code, reason) in REASONS {
        assert_eq!(reason_of(u64::from(code)), reason);
        assert_eq!(reason_code(reason), code);
    }
    assert_eq!(reason_of(15), CloseReason::TransportClosed);
    assert_eq!(reason_of(u64::MAX), CloseReason::TransportClosed);
}
