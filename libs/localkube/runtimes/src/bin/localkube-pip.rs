//! `pip` and `uv` of a container as a small executable of its own, for tests; Ferroflow's executable dispatches to the same function.

fn main() -> ! {
    localkube_runtimes::pip_main()
}
