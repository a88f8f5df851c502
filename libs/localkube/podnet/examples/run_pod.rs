//! Runs a command with a Pod's address: `cargo run --example run_pod -- STATE_DIR UID COMMAND ...`; prints the address to stderr.
//! Services are read from `STATE_DIR/services`.

#[cfg(target_os = "linux")]
fn main() -> std::io::Result<()> {
    use std::os::fd::AsFd;
    use std::path::PathBuf;

    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [state, uid, program, rest @ ..] = arguments.as_slice() else {
        return Err(std::io::Error::other("usage: run_pod STATE_DIR UID COMMAND ..."));
    };
    let state = PathBuf::from(state);
    let ip = localkube_podnet::AddressPool::open(&state)?.lease(uid)?;
    eprintln!("{ip}");
    let (give, take) = std::sync::mpsc::channel();
    let (program, rest) = (program.clone(), rest.to_vec());
    let spawner = std::thread::spawn(move || {
        let listener = localkube_podnet::install_filter()?;
        give.send(listener).map_err(std::io::Error::other)?;
        std::process::Command::new(program).args(rest).status()
    });
    let (stop, stopper) = std::io::pipe()?;
    let listener = take.recv().map_err(std::io::Error::other)?;
    let supervisor = localkube_podnet::Supervisor::new(listener, ip, state.join("services"));
    let answering = std::thread::spawn(move || supervisor.run(stop.as_fd()));
    let status = spawner
        .join()
        .unwrap_or_else(|_| Err(std::io::Error::other("the starting thread ended early")))?;
    drop(stopper);
    let _ = answering.join();
    std::process::exit(status.code().unwrap_or(1))
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("{}", localkube_podnet::supported().err().unwrap_or_default());
}
