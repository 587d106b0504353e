//! The bytes of one example of each kind. A change here is a change of the protocol: nodes that
//! run now would not understand it.

use super::examples;
use crate::types::{CloseReason, DialBackOutcome, Refusal, ResponseStatus};
use crate::wire::convert::{
    OUTCOMES, REASONS, REFUSALS, STATUSES, outcome_code, outcome_of, reason_code, reason_of,
    refusal_code, refusal_of, status_code, status_of,
};
use crate::wire::{decode_frame, encode_frame};

const GOLDEN: [(&str, &str); 46] = [
    (
        "hello",
        "\
         0ac4010ac1010a0b6f72646572732d70726f641001180220032880808080802030808080053a97010a20ed49\
         28c628d1c2c6eae90338905995612959273a5c63f93636c14614ac8737d110ac021880d095ffbc3122167065\
         6572312e6578616d706c652e636f6d3a35303031220f5b323030313a6462383a3a315d3a372a40b6955e5139\
         117c20819122fe02fb2fbe6e5367284fee66fdea33252d38f2eae729c62998724e8f09ef823a709a92fde87e\
         f1ccd680219fc09f054835b88b7b094204c00002015801\
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
         0a4442420a400101010101010101010101010101010101010101010101010101010101010101020202020202\
         0202020202020202020202020202020202020202020202020202\
         ",
    ),
    ("missing", "0a244a220a200303030303030303030303030303030303030303030303030303030303030303"),
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
         0a505a4e0a20040404040404040404040404040404040404040404040404040404040404040410ac021a0570\
         6965636522200808080808080808080808080808080808080808080808080808080808080808\
         ",
    ),
    (
        "duplicate",
        "\
         0a4462420a400505050505050505050505050505050505050505050505050505050505050505060606060606\
         0606060606060606060606060606060606060606060606060606\
         ",
    ),
    ("early", "0a246a220a200707070707070707070707070707070707070707070707070707070707070707"),
    ("stored", "0a027200"),
    (
        "ask",
        "\
         0a2d82012a08031080d095ffbc31220b08e9d795ffbc311202080922121a1007070707070707070707070707\
         070707\
         ",
    ),
    (
        "answer",
        "\
         0a658a01620803222a080620012a200808080808080808080808080808080808080808080808080808080808\
         080808320280082207080612010120022229080a20022a200909090909090909090909090909090909090909\
         090909090909090909090909320101\
         ",
    ),
    ("yours", "0a089201050805120101"),
    (
        "offer",
        "\
         0ab9019a01b5010803126a736f726368612d706565722f747800010707070707070707070707070707070707\
         070707070707070707070707070707e803000000000000d00700000000000001000000000000003ae7d805f6\
         789a6402acb70ad4096a85a56bf6804eaf25c0493ac697548d30b501741a4009090909090909090909090909\
         0909090909090909090909090909090909090909090909090909090909090909090909090909090909090909\
         09090909090909200128bc05\
         ",
    ),
    (
        "reserve",
        "\
         0a33a201300a200808080808080808080808080808080808080808080808080808080808080808100418012a\
         08000209ffffffff0f\
         ",
    ),
    ("busy", "0a25aa01220a200909090909090909090909090909090909090909090909090909090909090909"),
    (
        "receiving",
        "\
         0a28b201250a200a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a108104\
         ",
    ),
    ("interest", "0a22ba011f080210011903000000000000002a1001000000000000000807060504030201"),
    ("interest", "0a05ba01022001"),
    (
        "hello",
        "\
         0a8f010a8c010a016e100118012003280130013a6e0a20ed4928c628d1c2c6eae90338905995612959273a5c\
         63f93636c14614ac8737d110ac021880d095ffbc312a404eb5dc9fe2f51453e2bba5ded470e1f17d26d09e27\
         b72a05f99e50efc76e4f4ad562995ab2a61b9fe221e0baedba6f465c946debb0d4cf31b0d0f6444cabda084a\
         0d08091001190300000000000000\
         ",
    ),
    (
        "peers",
        "\
         0a7432720a6e0a20ed4928c628d1c2c6eae90338905995612959273a5c63f93636c14614ac8737d110ac0218\
         80d095ffbc312a404eb5dc9fe2f51453e2bba5ded470e1f17d26d09e27b72a05f99e50efc76e4f4ad562995a\
         b2a61b9fe221e0baedba6f465c946debb0d4cf31b0d0f6444cabda081001\
         ",
    ),
    ("flushed", "0a03ca0100"),
    (
        "hello",
        "\
         0a87010a84010a016e100118012003280130013a6e0a20ed4928c628d1c2c6eae90338905995612959273a5c\
         63f93636c14614ac8737d110ac021880d095ffbc312a404eb5dc9fe2f51453e2bba5ded470e1f17d26d09e27\
         b72a05f99e50efc76e4f4ad562995ab2a61b9fe221e0baedba6f465c946debb0d4cf31b0d0f6444cabda0860\
         80d095ffbc31\
         ",
    ),
    (
        "hello",
        "\
         0ac4010ac1010a016e100118012003280130013a6e0a20ed4928c628d1c2c6eae90338905995612959273a5c\
         63f93636c14614ac8737d110ac021880d095ffbc312a404eb5dc9fe2f51453e2bba5ded470e1f17d26d09e27\
         b72a05f99e50efc76e4f4ad562995ab2a61b9fe221e0baedba6f465c946debb0d4cf31b0d0f6444cabda086a\
         200b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b6a200c0c0c0c0c0c0c0c0c\
         0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c\
         ",
    ),
    (
        "hello",
        "\
         0a87010a84010a016e100118012003280130013a6e0a20ed4928c628d1c2c6eae90338905995612959273a5c\
         63f93636c14614ac8737d110ac021880d095ffbc312a404eb5dc9fe2f51453e2bba5ded470e1f17d26d09e27\
         b72a05f99e50efc76e4f4ad562995ab2a61b9fe221e0baedba6f465c946debb0d4cf31b0d0f6444cabda0870\
         80d095ffbc31\
         ",
    ),
    (
        "refused",
        "\
         0a50d2014d0a400b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0c0c0c0c0c\
         0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c120201091880d095ffbc31\
         ",
    ),
    ("probe", "0a16da0113090700000000000000120570726f626518ac02"),
    ("probed", "0a16e2011309070000000000000010051a0670726f626564"),
    (
        "hello",
        "\
         0a81010a7f0a016e100118012003280130013a6e0a20ed4928c628d1c2c6eae90338905995612959273a5c63\
         f93636c14614ac8737d110ac021880d095ffbc312a404eb5dc9fe2f51453e2bba5ded470e1f17d26d09e27b7\
         2a05f99e50efc76e4f4ad562995ab2a61b9fe221e0baedba6f465c946debb0d4cf31b0d0f6444cabda087801\
         ",
    ),
    ("switch", "0a05ea01020803"),
    ("request", "0a23f2012008ac02120e6f72646572732e71756f74652f3118f0a20420b0ea012a0361736b"),
    ("response", "0a10fa010d08ac0218062206616e73776572"),
    ("response", "0a11fa010e08ad0210032a0731303438353736"),
    ("body_part", "0a0c82020908ac021a046d6f7265"),
    ("body_part", "0a0e82020b080110011a056f66206974"),
    ("cancel_request", "0a068a020308ac02"),
    ("dial_back", "0a0f92020c090807060504030201108927"),
    (
        "dial_back_task",
        "\
         0a379a02340908070605040302011204c000020118bb03222007070707070707070707070707070707070707\
         07070707070707070707070707\
         ",
    ),
    (
        "dial_back_task",
        "\
         0a439a0240090807060504030201121020010db8000000000000000000000001188927222007070707070707\
         07070707070707070707070707070707070707070707070707\
         ",
    ),
    ("dial_back_result", "0a0ea2020b0908070605040302011002"),
    (
        "dial_back_result",
        "\
         0a30a2022d09080706050403020110021a200707070707070707070707070707070707070707070707070707\
         070707070707\
         ",
    ),
    (
        "hello",
        "\
         0a8a010a87010a016e100118012003280130013a6e0a20ed4928c628d1c2c6eae90338905995612959273a5c\
         63f93636c14614ac8737d110ac021880d095ffbc312a404eb5dc9fe2f51453e2bba5ded470e1f17d26d09e27\
         b72a05f99e50efc76e4f4ad562995ab2a61b9fe221e0baedba6f465c946debb0d4cf31b0d0f6444cabda0881\
         010807060504030201\
         ",
    ),
];

#[test]
fn the_encoding_of_every_kind_is_locked() {
    assert_eq!(examples().len(), GOLDEN.len(), "each has its bytes");
    for (message, (kind, hex)) in examples().into_iter().zip(GOLDEN) {
        let frame = encode_frame(std::slice::from_ref(&message));
        let shown = frame.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
        assert_eq!((message.kind(), shown.as_str()), (kind, hex));
        assert_eq!(decode_frame(frame).unwrap(), [message]);
    }
}

#[test]
fn every_reason_has_a_code_of_its_own() {
    for (code, refusal) in REFUSALS {
        assert_eq!((refusal_of(u64::from(code)), refusal_code(refusal)), (refusal, code));
    }
    assert_eq!(refusal_of(u64::MAX), Refusal::Ignored, "of a later version");
    for (code, reason) in REASONS {
        assert_eq!(reason_of(u64::from(code)), reason);
        assert_eq!(reason_code(reason), code);
    }
    for (code, status) in STATUSES {
        assert_eq!((status_of(u64::from(code)), status_code(status)), (status, code));
    }
    assert_eq!(status_of(u64::MAX), ResponseStatus::Failed, "of a later version");
    for (code, outcome) in OUTCOMES {
        assert_eq!((outcome_of(u64::from(code)), outcome_code(outcome)), (outcome, code));
    }
    assert_eq!(outcome_of(u64::MAX), DialBackOutcome::Refused, "of a later version");
    assert_eq!(reason_code(CloseReason::IdentityInUse), 16);
    assert_eq!(reason_code(CloseReason::Moved), 17);
    assert_eq!(reason_of(10), CloseReason::TransportClosed);
    assert_eq!(reason_of(u64::MAX), CloseReason::TransportClosed);
}
