//! The generated code is what the protos say, and so are the descriptors that reflection shows.
//!
//! Regenerates both with protox, a protobuf compiler in Rust, and compares byte for byte. After a
//! change to `proto/`, write it anew with
//! `SORCHA_REGENERATE=1 cargo test -p sorcha-peer-codegen`.

use std::fs;
use std::path::Path;

use protox::prost::Message;

const GENERATED: &str = "src/wire/generated";
const HEADER: &str = "\
// Written by tests/codegen/fresh.rs from proto/; do not edit.
";
/// Descriptors of the compatible services, without comments.
const DESCRIPTORS: &str = "compat.bin";
const COMPAT: [&str; 3] = [
    "sorcha/peer/discovery.proto",
    "sorcha/peer/communication.proto",
    "sorcha/peer/transaction.proto",
];

/// Writes what belongs into [`GENERATED`] into `dir`.
fn generate(dir: &Path) {
    let compat = protox::compile(COMPAT, [super::PROTO]).expect("the compatible protos compile");
    let mut bare = compat.clone();
    for file in &mut bare.file {
        file.source_code_info = None;
    }
    fs::write(dir.join(DESCRIPTORS), bare.encode_to_vec()).expect("room for the descriptors");
    let raw = dir.join("raw");
    fs::create_dir(&raw).expect("a fresh directory");
    let feature = "#[cfg(feature = \"grpc\")]";
    tonic_prost_build::configure()
        .bytes(".")
        .build_transport(false)
        .client_mod_attribute(".", feature)
        .server_mod_attribute(".", feature)
        .emit_rerun_if_changed(false)
        .out_dir(&raw)
        .compile_fds(compat)
        .expect("the compatible services generate");

    // The frames of the native stream are written and read by hand, and its service is generic
    // over their bytes: of these only the messages are generated, to check the hand against.
    let native = protox::compile(["sorcha/peer/gossip.proto"], [super::PROTO])
        .expect("the native proto compiles");
    tonic_prost_build::configure()
        .bytes(".")
        .build_transport(false)
        .build_client(false)
        .build_server(false)
        .emit_rerun_if_changed(false)
        .out_dir(&raw)
        .compile_fds(native)
        .expect("the native messages generate");

    for entry in fs::read_dir(&raw).expect("generated files") {
        let entry = entry.expect("a generated file");
        let text = fs::read_to_string(entry.path()).expect("generated code");
        let name = entry.file_name().into_string().expect("a plain name");
        let short = name.strip_prefix("sorcha.peer.").expect("a package of ours");
        let short = short.replace(".v1.rs", ".rs");
        fs::write(dir.join(short), format!("{HEADER}{text}")).expect("room for the result");
    }
    fs::remove_dir_all(&raw).expect("removing our own files");
}

#[test]
fn the_committed_code_is_what_the_protos_say() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    generate(dir.path());
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(GENERATED);
    let rewrite = std::env::var_os("SORCHA_REGENERATE").is_some();
    let mut names = Vec::new();
    for entry in fs::read_dir(dir.path()).expect("generated files") {
        let entry = entry.expect("a generated file");
        let fresh = fs::read(entry.path()).expect("generated code");
        let path = committed.join(entry.file_name());
        if rewrite {
            fs::write(&path, &fresh).expect("a writable source tree");
        }
        let found = fs::read(&path).unwrap_or_default();
        assert!(found == fresh, "{} is stale: see the top of this test", path.display());
        names.push(entry.file_name());
    }
    assert_eq!(names.len(), 5, "{names:?}");
    for entry in fs::read_dir(&committed).expect("the committed code") {
        let name = entry.expect("a committed file").file_name();
        assert!(name == "mod.rs" || names.contains(&name), "{name:?} has no proto any more");
    }
}
