//! Links the program at a fixed address on Linux: every step starts it three times (shim, launcher, pip), and relocating a
//! position-independent executable of this size costs 5 ms of processor time each time.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        println!("cargo:rustc-link-arg-bins=-no-pie");
    }
}
