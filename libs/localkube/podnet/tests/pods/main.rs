//! Pods with unchanged programs: real filters, real sockets, no root needed.

#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]
#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use localkube_podnet::{Supervisor, install_filter};

mod accepts;
mod harness;
mod owners;

use harness::{Net, python, wait_for};

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

const FETCH: &str =
    "import urllib.request as u\nprint(u.urlopen('http://ADDRESS/name', timeout=10).read().decode())";
const FETCH_ASYNC: &str = "
import asyncio
async def main():
    async def one():
        r, w = await asyncio.open_connection(*'ADDRESS'.rsplit(':', 1))
        w.write(b'GET /name HTTP/1.0\\r\\n\\r\\n')
        text = (await r.read()).decode().rsplit('\\n', 1)[1]
        w.close()
        return text
    print(','.join(sorted(set(await asyncio.gather(*[one() for _ in range(20)])))))
asyncio.run(main())";

#[test]
fn two_unchanged_servers_on_one_port_behind_one_service() {
    let net = Net::new();
    let (a, b, client) = (net.pod("a"), net.pod("b"), net.pod("client"));
    let mut servers = Vec::new();
    for (pod, name) in [(&a, "a"), (&b, "b")] {
        let dir = net.dir.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("name"), name).unwrap();
        servers.push(pod.serve_files(dir, &["8080"]));
        wait_for((pod.ip, 8080).into());
    }
    let service = "127.96.200.7:80";
    net.publish(&[
        (service, vec![(a.ip, 8080).into(), (b.ip, 8080).into()]),
        ("127.96.200.8:80", vec![]),
    ]);

    // by the Pod's address, from outside and from inside
    let direct = FETCH.replace("ADDRESS", &format!("{}:8080", b.ip));
    assert_eq!(client.says(&direct), "b");
    // through the Service: blocking and asyncio clients reach both
    let both: String = (0..2)
        .map(|_| client.says(&FETCH.replace("ADDRESS", service)))
        .collect();
    assert!(
        client.says(&FETCH_ASYNC.replace("ADDRESS", service)) == "a,b",
        "{both}"
    );
    // localhost is the Pod's own
    assert_eq!(a.says(&FETCH.replace("ADDRESS", "localhost:8080")), "a");
    assert_eq!(b.says(&FETCH.replace("ADDRESS", "127.0.0.1:8080")), "b");
    assert_eq!(b.says(&FETCH.replace("ADDRESS", "[::1]:8080")), "b");
    let refused = |address: &str| {
        let out = client.python(&FETCH.replace("ADDRESS", address));
        assert!(
            String::from_utf8_lossy(&out.stderr).contains("Connection refused"),
            "{address}: {out:?}"
        );
    };
    refused("localhost:8080");
    refused("127.96.200.8:80");
    refused("127.96.200.9:80");
    refused("127.96.200.7:81");
    // the Service changes: the next connect sees it
    net.publish(&[(service, vec![(b.ip, 8080).into()])]);
    assert_eq!(client.says(&FETCH_ASYNC.replace("ADDRESS", service)), "b");
}

#[test]
fn the_hosts_loopback_is_out_of_reach_and_its_services_are_not() {
    let net = Net::new();
    let pod = net.pod("p");
    let host = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = host.local_addr().unwrap().port();
    let connect =
        |address: &str| format!("import socket\nprint(socket.socket().connect_ex(('{address}', {port})))");
    assert_eq!(pod.says(&connect("127.0.0.1")), libc::ECONNREFUSED.to_string());
    net.publish(&[(&format!("127.96.201.1:{port}"), vec![host.local_addr().unwrap()])]);
    assert_eq!(pod.says(&connect("127.96.201.1")), "0");
    // the host sees the Pod's address
    let (_, peer) = host.accept().unwrap();
    assert_eq!(peer.ip(), pod.ip);
}

#[test]
fn sockets_of_every_kind_are_the_pods() {
    let net = Net::new();
    let pod = net.pod("p");
    let ip = pod.ip;
    let name = |setup: &str| pod.says(&format!("import socket as s\n{setup}\nprint(x.getsockname()[0])"));
    assert_eq!(name("x = s.socket(); x.bind(('', 0))"), ip.to_string());
    assert_eq!(name("x = s.socket(); x.bind(('127.0.0.1', 0))"), ip.to_string());
    assert_eq!(
        name("x = s.socket(s.AF_INET6); x.bind(('::', 0))"),
        format!("::ffff:{ip}")
    );
    assert_eq!(
        name("x = s.socket(s.AF_INET6); x.setsockopt(41, 26, 1); x.bind(('::1', 0))"),
        format!("::ffff:{ip}")
    );
    assert_eq!(
        name("x = s.create_server(('', 0), family=s.AF_INET6, dualstack_ipv6=True)"),
        format!("::ffff:{ip}")
    );
    assert_eq!(
        name("x = s.socket(s.AF_INET, s.SOCK_DGRAM); x.bind(('', 0))"),
        "0.0.0.0"
    );
    let port = free_port();
    assert_eq!(
        name(&format!(
            "x = s.socket(s.AF_INET, s.SOCK_DGRAM); x.bind(('', {port}))"
        )),
        ip.to_string()
    );
    // another Pod's address is not available; an address in use is in use
    let error = |setup: &str| {
        pod.says(&format!("import socket as s, errno\ntry:\n    {setup}\nexcept OSError as e: print(errno.errorcode[e.errno])"))
    };
    assert_eq!(error("s.socket().bind(('127.94.1.1', 80))"), "EADDRNOTAVAIL");
    assert_eq!(
        error("a = s.create_server(('', 0)); s.create_server(('', a.getsockname()[1]), reuse_port=False)"),
        "EADDRINUSE"
    );
    // a server on both families, in either order (asyncio opens them in any)
    for order in [
        "(s.AF_INET, s.AF_INET6)",
        "(s.AF_INET6, s.AF_INET)",
        "(s.AF_INET6,)",
    ] {
        let script = "
import socket as s
all = []
for family in ORDER:
    x = s.socket(family); x.setsockopt(s.SOL_SOCKET, s.SO_REUSEADDR, 1)
    if family == s.AF_INET6: x.setsockopt(s.IPPROTO_IPV6, s.IPV6_V6ONLY, 1)
    x.bind(('', PORT)); all.append(x)
for x in all: x.listen()
s.create_connection(('127.0.0.1', PORT), timeout=5).close()
all[ORDER.index(s.AF_INET) if s.AF_INET in ORDER else 0].accept()
print('ok')";
        assert_eq!(
            pod.says(&script.replace("ORDER", order).replace("PORT", &port.to_string())),
            "ok",
            "{order}"
        );
    }
    let both = "
import asyncio
async def main():
    server = await asyncio.start_server(lambda r, w: w.close(), None, PORT)
    r, w = await asyncio.open_connection('localhost', PORT)
    print(repr(await r.read()))
asyncio.run(main())";
    assert_eq!(pod.says(&both.replace("PORT", &port.to_string())), "b''");
    // Unix sockets are none of our business
    assert_eq!(pod.says("import socket as s, tempfile\nd = tempfile.mkdtemp()\nx = s.socket(s.AF_UNIX); x.bind(d + '/s'); x.listen(); y = s.socket(s.AF_UNIX); y.connect(d + '/s'); print('ok')"), "ok");
    // a non-blocking connect says that it is in progress, then how it went
    let progress = "
import socket as s, errno, select
a = s.create_server(('', 0)); x = s.socket(); x.setblocking(False)
code = x.connect_ex(('127.0.0.1', a.getsockname()[1]))
select.select([], [x], [], 5)
print(errno.errorcode.get(code, code), x.getsockopt(s.SOL_SOCKET, s.SO_ERROR), x.getpeername()[0])";
    assert_eq!(pod.says(progress), format!("EINPROGRESS 0 {ip}"));
}

#[test]
fn threads_and_a_connect_that_waits_do_not_hold_up_others() {
    let net = Net::new();
    let pod = net.pod("p");
    // a full backlog lets blocking connects wait; meanwhile other threads connect elsewhere
    let script = "
import socket as s, threading, time
full = s.socket(); full.bind(('', 0)); full.listen(0)
free = s.create_server(('', 0), backlog=100)
def stuck():
    x = s.socket(); x.settimeout(None)
    try: x.connect(full.getsockname())
    except OSError: pass
for _ in range(8): threading.Thread(target=stuck, daemon=True).start()
time.sleep(0.3)
start = time.monotonic()
for _ in range(50): s.create_connection(free.getsockname(), timeout=5).close()
print(time.monotonic() - start < 2)
import os; os._exit(0)";
    assert_eq!(pod.says(script), "True");
}

#[test]
fn a_name_server_on_the_loopback_stays_reachable() {
    let net = Net::new();
    let pod = net.pod("p");
    let peer = |ip: &str| {
        pod.says(&format!("import socket as s\nx = s.socket(s.AF_INET, s.SOCK_DGRAM); x.connect(('{ip}', 53)); print(x.getpeername()[0])"))
    };
    assert_eq!(peer("127.0.0.53"), pod.ip.to_string());
    std::fs::write(net.dir.path().join("resolv.conf"), "nameserver 127.0.0.53\n").unwrap();
    assert_eq!(peer("127.0.0.53"), "127.0.0.53");
    assert_eq!(peer("127.0.0.54"), pod.ip.to_string());
}

#[test]
fn queues_past_the_filter_are_refused() {
    let net = Net::new();
    let script = format!(
        "import ctypes\nl = ctypes.CDLL(None, use_errno=True)\nprint(l.syscall({}, 1, 0), ctypes.get_errno())",
        libc::SYS_io_uring_setup
    );
    assert_eq!(net.pod("p").says(&script), format!("-1 {}", libc::EPERM));
}

#[test]
fn what_goes_outside_goes_as_it_did() {
    let net = Net::new();
    let pod = net.pod("p");
    // an address of documentation (RFC 5737): unreachable, but never refused by us
    let out = pod.says("import socket as s\nx = s.socket(s.AF_INET, s.SOCK_DGRAM)\ntry: print(x.connect_ex(('192.0.2.1', 9)) in (0, 101))\nexcept OSError as e: print(e)");
    assert_eq!(out, "True");
}

#[test]
fn an_ordinary_user_can_do_it_too() {
    if !nix::unistd::Uid::effective().is_root() {
        return; // then every other test here shows it
    }
    let dir = tempfile::Builder::new()
        .prefix("podnet")
        .tempdir_in("/tmp")
        .unwrap();
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let copy = dir.path().join("pods");
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    let temp = dir.path().join("tmp");
    std::fs::create_dir(&temp).unwrap();
    nix::unistd::chown(&temp, Some(65534.into()), Some(65534.into())).unwrap();
    let out = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&copy)
        .args(["--test-threads=1", "two_unchanged", "sockets_of"])
        .args(["unchanged_servers_answer", "signals_reach", "flags_addresses"])
        .env("TMPDIR", &temp)
        .current_dir("/")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(
        out.status.success() && text.contains("5 passed"),
        "{text}\n{}",
        String::from_utf8_lossy(&out.stderr)
    );
}

#[test]
fn what_a_connect_costs() {
    const TIMES: u32 = 2000;
    let net = Net::new();
    let (pod, server) = (net.pod("p"), net.pod("s"));
    let ip = server.ip;
    let listener = server.inside(|| TcpListener::bind("0.0.0.0:0").unwrap());
    let port = listener.local_addr().unwrap().port();
    assert_eq!(listener.local_addr().unwrap().ip(), ip);
    std::thread::spawn(move || listener.incoming().for_each(drop));
    net.publish(&[("127.96.202.1:80", vec![(ip, port).into()])]);
    let measure = move |to: SocketAddr| {
        let start = Instant::now();
        for _ in 0..TIMES {
            let mut stream = TcpStream::connect(to).unwrap();
            let _ = stream.write_all(b"x");
            let _ = stream.read(&mut [0]);
        }
        start.elapsed() / TIMES
    };
    let plain = measure((ip, port).into());
    let by_address = pod.inside(move || measure((ip, port).into()));
    let by_service = pod.inside(move || measure("127.96.202.1:80".parse().unwrap()));
    println!(
        "connect, write, read, close: outside {plain:?}, in a pod {by_address:?}, through a service {by_service:?}"
    );
    assert!(by_service < Duration::from_millis(20));
}

#[test]
fn a_supervisor_ends_with_the_last_process_and_a_listener_can_be_sent() {
    use std::os::unix::process::CommandExt;
    let net = Net::new();
    let ip = net.pool.lease("p").unwrap();
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut command = Command::new(python());
    command
        .args([
            "-c",
            "import socket; x = socket.socket(); x.bind(('', 0)); print(x.getsockname()[0])",
        ])
        .stdout(Stdio::piped());
    // SAFETY: both functions make system calls only
    unsafe {
        command.pre_exec(move || {
            let listener = install_filter()?;
            localkube_podnet::send_listener(theirs.as_fd(), listener.as_fd())
        });
    }
    let child = command.spawn().unwrap();
    drop(command);
    let listener = localkube_podnet::receive_listener(ours.as_fd()).unwrap();
    let (read, _write) = nix::unistd::pipe().unwrap();
    // returns although nobody stops it
    Supervisor::new(listener, ip, net.table())
        .run(read.as_fd())
        .unwrap();
    assert_eq!(
        String::from_utf8(child.wait_with_output().unwrap().stdout)
            .unwrap()
            .trim(),
        ip.to_string()
    );
    assert_eq!(
        localkube_podnet::receive_listener(ours.as_fd())
            .unwrap_err()
            .kind(),
        std::io::ErrorKind::UnexpectedEof
    );
    localkube_podnet::supported().unwrap();
}

#[test]
fn many_processes_at_once_and_killed_ones_do_no_harm() {
    let net = Net::new();
    let pod = net.pod("p");
    let listener = pod.inside(|| TcpListener::bind("0.0.0.0:0").unwrap());
    let port = listener.local_addr().unwrap().port();
    let accepting = std::thread::spawn(move || listener.incoming().take(400).for_each(drop));
    net.publish(&[("127.96.203.1:80", vec![(pod.ip, port).into()])]);
    let script = "import socket\nfor _ in range(40): socket.create_connection(('127.96.203.1', 80)).close()";
    let endless = "import socket\nwhile True:\n    try: socket.create_connection(('127.96.203.9', 80))\n    except OSError: pass";
    let (children, mut doomed) = pod.inside(move || {
        let start = |script: &str| Command::new(python()).args(["-c", script]).spawn().unwrap();
        (
            (0..10).map(|_| start(script)).collect::<Vec<Child>>(),
            (0..5).map(|_| start(endless)).collect::<Vec<Child>>(),
        )
    });
    for child in &mut doomed {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    accepting.join().unwrap();
}
