//! Compiles every file under `proto/`: messages, clients, servers, proto JSON and the descriptor set for reflection.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use prost::Message as _;

/// Packages that travel as JSON too. MLMD (proto2) is spoken only in binary.
const JSON_PACKAGES: &[&str] = &[
    ".kubeflow",
    ".ml_pipelines",
    ".ferroflow",
    ".inference",
    ".api",
    ".google.rpc",
];

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from("../../proto");
    println!("cargo:rerun-if-changed={}", root.display());
    // embedded by src/manifests.rs: a new file must reach the executable
    for folder in ["crds", "rbac", "webhooks"] {
        println!("cargo:rerun-if-changed={folder}");
    }
    let mut files = Vec::new();
    collect(&root, &mut files)?;
    files.sort();
    for file in &files {
        println!("cargo:rerun-if-changed={}", file.display());
    }
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let descriptors = protox::compile(&files, [&root])?;
    let bytes = descriptors.encode_to_vec();
    fs::write(out.join("descriptors.bin"), &bytes)?;

    tonic_prost_build::configure()
        .compile_well_known_types(true)
        .extern_path(".google.protobuf", "::pbjson_types")
        .build_transport(false)
        .include_file("protos.rs")
        .compile_fds(descriptors.clone())?;

    pbjson_build::Builder::new()
        .register_descriptors(&bytes)?
        .preserve_proto_field_names()
        .build(JSON_PACKAGES)?;
    let mut packages: Vec<&str> = descriptors
        .file
        .iter()
        .map(prost_types::FileDescriptorProto::package)
        .collect();
    packages.sort_unstable();
    packages.dedup();
    for package in packages {
        let serde = out.join(format!("{package}.serde.rs"));
        if serde.exists() {
            let code = out.join(format!("{package}.rs"));
            fs::write(&code, fs::read_to_string(&code)? + &fs::read_to_string(&serde)?)?;
        }
    }
    Ok(())
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            println!("cargo:rerun-if-changed={}", path.display());
            collect(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "proto") {
            files.push(path);
        }
    }
    Ok(())
}
