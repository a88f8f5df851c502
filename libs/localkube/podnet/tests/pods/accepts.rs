//! Accept in a Pod does what accept does.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use crate::harness::{Net, Pod, Server};

/// System calls as they are, for Python.
const RAW: &str = "
import ctypes, errno, fcntl, os, resource, signal, socket, struct, threading, time
libc = ctypes.CDLL(None, use_errno=True)
def accept4(fd, address=None, length=None, flags=0):
    got = libc.accept4(fd, address, ctypes.byref(length) if length is not None else None, flags)
    return got if got >= 0 else errno.errorcode[ctypes.get_errno()]
def server(*, blocking=True, family=socket.AF_INET):
    l = socket.socket(family); l.bind(('', 0)); l.listen(50); l.setblocking(blocking)
    return l
def client(l): return socket.create_connection(('127.0.0.1', l.getsockname()[1]), timeout=20)
";

fn says(pod: &Pod, script: &str) -> String {
    pod.says(&format!("{RAW}{script}"))
}

fn first_line(server: &mut Server) -> String {
    let mut line = String::new();
    std::io::BufRead::read_line(
        &mut std::io::BufReader::new(server.0.stdout.as_mut().unwrap()),
        &mut line,
    )
    .unwrap();
    line.trim().to_owned()
}

#[test]
fn flags_addresses_and_errors() {
    let net = Net::new();
    let pod = net.pod("p");
    assert_eq!(
        says(&pod, "l = server(blocking=False); print(accept4(l.fileno()))"),
        "EAGAIN"
    );
    let flags = "
l = server()
for flags in 0, socket.SOCK_NONBLOCK, socket.SOCK_CLOEXEC, socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC:
    c = client(l); fd = accept4(l.fileno(), flags=flags)
    got = (socket.SOCK_NONBLOCK if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK else 0) | (socket.SOCK_CLOEXEC if fcntl.fcntl(fd, fcntl.F_GETFD) else 0)
    assert got == flags, (got, flags)
c = client(l); print(accept4(l.fileno(), flags=1)); fd = libc.accept(l.fileno(), None, None); print(fcntl.fcntl(fd, fcntl.F_GETFD))";
    assert_eq!(says(&pod, flags), "EINVAL\n0");
    let address = "
l = server(); c = client(l); buffer = ctypes.create_string_buffer(b'z' * 64, 64); length = ctypes.c_int(6)
accept4(l.fileno(), buffer, length)
port, = struct.unpack('!H', buffer.raw[2:4])
print(length.value, port == c.getsockname()[1], buffer.raw[6:9])
c = client(l); length = ctypes.c_int(64); accept4(l.fileno(), buffer, length)
print(length.value, socket.inet_ntoa(buffer.raw[4:8]) == c.getsockname()[0], buffer.raw[16:18])
c = client(l); print(accept4(l.fileno(), buffer, ctypes.c_int(-1)), accept4(l.fileno(), buffer), accept4(l.fileno(), ctypes.c_void_p(8), ctypes.c_int(16)))
x, y = l.accept(); print(y == c.getsockname())";
    assert_eq!(
        says(&pod, address),
        "16 True b'zzz'\n16 True b'zz'\nEINVAL EFAULT EFAULT\nTrue"
    );
    let wrong = "s, d = socket.socket(), socket.socket(type=socket.SOCK_DGRAM); print(accept4(s.fileno()), accept4(999), accept4(os.open('/', 0)), accept4(d.fileno()))";
    assert_eq!(says(&pod, wrong), "EINVAL EBADF ENOTSOCK ENOTSUP");
    let unix = "import tempfile\nl = socket.socket(socket.AF_UNIX); l.bind(tempfile.mkdtemp() + '/s'); l.listen(); c = socket.socket(socket.AF_UNIX); c.connect(l.getsockname()); x, _ = l.accept(); c.send(b'hi'); print(x.recv(9))";
    assert_eq!(says(&pod, unix), "b'hi'");
    let six = "l = server(family=socket.AF_INET6); c = client(l); x, peer = l.accept(); print(peer[0] == '::ffff:' + c.getsockname()[0], peer[1] == c.getsockname()[1])";
    assert_eq!(says(&pod, six), "True True");
    // one that is gone already is accepted, and ends
    let gone = "l = server(); client(l).close(); x, _ = l.accept(); print(x.recv(9))";
    assert_eq!(says(&pod, gone), "b''");
    // no descriptor is left: an error, and the connection waits
    let full = "
l = server(); c = client(l); resource.setrlimit(resource.RLIMIT_NOFILE, (l.fileno() + 1, 100))
print(accept4(l.fileno())); resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
x, peer = l.accept(); print(peer == c.getsockname())";
    assert_eq!(says(&pod, full), "EMFILE\nTrue");
}

#[test]
fn a_wait_ends_with_its_time_its_listener_or_a_connection() {
    let net = Net::new();
    let pod = net.pod("p");
    let timeout = "
l = server(); l.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack('ll', 0, 200000))
start = time.monotonic(); print(accept4(l.fileno()), 0.15 < time.monotonic() - start < 5)
l = server(); l.settimeout(0.2)
try: l.accept()
except TimeoutError: print('timed out')";
    assert_eq!(says(&pod, timeout), "EAGAIN True\ntimed out");
    let shut = "
l = server(); threading.Timer(0.2, lambda: l.shutdown(socket.SHUT_RDWR)).start()
print(accept4(l.fileno()))";
    assert_eq!(says(&pod, shut), "EINVAL");
    let later = "
l = server(); out = []
threading.Timer(0.2, lambda: out.append(client(l))).start()
x, peer = l.accept()
while not out: time.sleep(0.01)
print(peer == out[0].getsockname())";
    assert_eq!(says(&pod, later), "True");
    // waiting at many listeners holds up nothing
    let many = "
l = [server() for _ in range(100)]; out = []
t = [threading.Thread(target=lambda x=x: out.append(x.accept())) for x in l]
for x in t: x.start()
time.sleep(0.2); c = [client(x) for x in l]
for x in t: x.join()
print(len(out))";
    assert_eq!(says(&pod, many), "100");
}

#[test]
fn signals_reach_a_server_that_waits() {
    let net = Net::new();
    let pod = net.pod("p");
    let raised = "
def stop(*_): raise SystemExit('stopped')
signal.signal(signal.SIGALRM, stop); signal.alarm(1)
try: server().accept()
except SystemExit as e: print(e)";
    assert_eq!(says(&pod, raised), "stopped");
    let interrupted = "
signal.signal(signal.SIGALRM, lambda *_: None); signal.setitimer(signal.ITIMER_REAL, 0.1)
l = server(); print(accept4(l.fileno()))
signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005); out = []
threading.Timer(0.5, lambda: out.append(client(l))).start()
x, peer = l.accept(); signal.setitimer(signal.ITIMER_REAL, 0)
while not out: time.sleep(0.01)
print(peer == out[0].getsockname())";
    assert_eq!(says(&pod, interrupted), "EINTR\nTrue");
    for (signal, ends) in [("SIGTERM", None), ("SIGINT", None), ("SIGKILL", Some(9))] {
        let mut server = pod.start(&format!(
            "{RAW}
signal.signal(signal.SIGTERM, lambda *_: os._exit(3))
l = socket.socket(); l.bind(('', 8081)); l.listen(); print('ready', flush=True)
try: l.accept()
except KeyboardInterrupt: os._exit(3)"
        ));
        assert_eq!(first_line(&mut server), "ready");
        std::thread::sleep(Duration::from_millis(100));
        let number: nix::sys::signal::Signal = signal.parse().unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(server.0.id() as i32), number).unwrap();
        let status = server.0.wait().unwrap();
        assert_eq!(status.signal(), ends, "{signal}");
        assert!(ends.is_some() || status.code() == Some(3), "{signal}: {status}");
        // nothing of it is left: the port is free
        assert!(TcpStream::connect((pod.ip, 8081)).is_err(), "{signal}");
    }
}

#[test]
fn calls_that_signals_interrupt_have_their_outcome() {
    let net = Net::new();
    let pod = net.pod("p");
    // handlers after which calls are made again, as most programs but Python install them
    let script = "
signal.signal(signal.SIGALRM, lambda *_: None); signal.siginterrupt(signal.SIGALRM, False)
signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
until = time.monotonic() + 4; rounds = 0
while time.monotonic() < until:
    l = socket.socket(); l.bind(('', 0)); l.listen(); c = socket.socket(); c.connect(l.getsockname())
    x, peer = l.accept(); c.sendall(b'x'); assert x.recv(1) == b'x'
    assert peer == c.getsockname()
    for s in x, c, l: s.close()
    rounds += 1
signal.setitimer(signal.ITIMER_REAL, 0)
print(rounds)";
    let rounds: u32 = says(&pod, script).parse().unwrap();
    println!("binds, connects and accepts under signals: {rounds}");
    assert!(rounds > 100);
}

#[test]
fn many_processes_accept_at_one_socket_and_killed_ones_do_no_harm() {
    let net = Net::new();
    let pod = net.pod("p");
    let mut server = pod.start(&format!(
        "{RAW}
l = socket.create_server(('', 8082), backlog=200); children = []
for _ in range(8):
    pid = os.fork()
    if pid == 0:
        while True:
            c, _ = l.accept(); c.sendall(str(os.getpid()).encode()); c.close()
    children.append(pid)
time.sleep(0.3)
for pid in children[:4]: os.kill(pid, 9); os.waitpid(pid, 0)
print('ready', flush=True); signal.pause()"
    ));
    assert_eq!(first_line(&mut server), "ready");
    let address = SocketAddr::from((pod.ip, 8082));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(move || {
                let ask = || {
                    let mut text = String::new();
                    let mut stream = TcpStream::connect(address).unwrap();
                    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                    stream.read_to_string(&mut text).unwrap();
                    text
                };
                (0..100).map(|_| ask()).collect::<Vec<_>>()
            })
        })
        .collect();
    let by: std::collections::HashSet<String> = clients.into_iter().flat_map(|c| c.join().unwrap()).collect();
    assert!(!by.contains("") && by.len() <= 4, "{by:?}");
}

#[test]
fn what_an_accept_costs() {
    const TIMES: u32 = 2000;
    let net = Net::new();
    let pod = net.pod("s");
    let serve = |listener: TcpListener| {
        for stream in listener.incoming().take(TIMES as usize) {
            let _ = stream.unwrap().write_all(b"x");
        }
    };
    let measure = |address: SocketAddr| {
        let start = Instant::now();
        for _ in 0..TIMES {
            let mut stream = TcpStream::connect(address).unwrap();
            assert_eq!(stream.read(&mut [0]).unwrap(), 1);
        }
        start.elapsed() / TIMES
    };
    let mut costs = Vec::new();
    for inside in [false, true] {
        let listener = pod.inside(|| TcpListener::bind("0.0.0.0:0").unwrap());
        let address = listener.local_addr().unwrap();
        let serving = if inside {
            pod.inside(move || std::thread::spawn(move || serve(listener)))
        } else {
            std::thread::spawn(move || serve(listener))
        };
        costs.push(measure(address));
        serving.join().unwrap();
    }
    println!(
        "connect, accept, write, read, close: accepted outside {:?}, in a pod {:?}",
        costs[0], costs[1]
    );
    assert!(costs[1] < Duration::from_millis(20));
}
