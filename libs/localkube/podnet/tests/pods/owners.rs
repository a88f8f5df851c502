//! Who reaches the servers of a Pod: its owner's processes, and nobody else's.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::harness::{Net, Pod, python, wait_for};

/// Answers `hello` to whoever sends a line.
const ANSWER: &str = "
import os, socket, sys, threading
def serve(listener):
    while True:
        connection, peer = listener.accept()
        assert peer[0].startswith('127.'), peer
        if connection.recv(100): connection.sendall(b'hello')
        connection.close()
";

const SERVERS: [(&str, &str); 5] = [
    ("blocking", "serve(socket.create_server(('', 8080)))"),
    (
        "forked before",
        "l = socket.create_server(('', 8080))\nfor _ in range(3):\n    if os.fork() == 0: serve(l)\nserve(l)",
    ),
    (
        "threads",
        "l = socket.create_server(('', 8080))\nfor _ in range(3): threading.Thread(target=serve, args=(l,)).start()",
    ),
    (
        "asyncio",
        "
import asyncio
async def answer(r, w):
    if await r.read(100): w.write(b'hello')
    w.close()
async def main():
    async with await asyncio.start_server(answer, None, 8080) as server: await server.serve_forever()
asyncio.run(main())",
    ),
    (
        "socketserver",
        "
import socketserver
class Answer(socketserver.BaseRequestHandler):
    def handle(self):
        if self.request.recv(100): self.request.sendall(b'hello')
socketserver.TCPServer.allow_reuse_address = True
socketserver.TCPServer(('', 8080), Answer).serve_forever(0.05)",
    ),
];

fn ask(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(b"who\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// Runs a Python program as another OS user; `None` where this process may not, which it says.
fn as_another_user(script: &str) -> Option<String> {
    if !nix::unistd::Uid::effective().is_root() {
        println!("SKIPPED what another OS user sees: only root may become another user");
        return None;
    }
    let out = Command::new("setpriv")
        .args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            python(),
            "-c",
            script,
        ])
        .current_dir("/")
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    Some(String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

/// What another user gets in some tries.
fn another_gets(address: SocketAddr) -> Option<String> {
    let script = "
import socket
seen = set()
for _ in range(20):
    x = socket.socket(); x.settimeout(20)
    try:
        x.connect(('IP', PORT)); x.sendall(b'who\\n')
        seen.add(repr(x.recv(100)))
    except (ConnectionResetError, BrokenPipeError): seen.add('reset')
    except OSError as e: seen.add(repr(e))
    x.close()
print(' '.join(sorted(seen)))";
    let script = script.replace("IP", &address.ip().to_string());
    as_another_user(&script.replace("PORT", &address.port().to_string()))
}

#[test]
fn unchanged_servers_answer_their_owner_alone() {
    let net = Net::new();
    for (name, program) in SERVERS {
        let (pod, client) = (net.pod(name), net.pod("client"));
        let _server = pod.start(&format!("{ANSWER}{program}"));
        let address = (pod.ip, 8080).into();
        wait_for(address);
        assert_eq!(ask(address), "hello", "{name}: the owner, outside a pod");
        assert_eq!(
            client.inside(move || ask(address)),
            "hello",
            "{name}: another pod"
        );
        if let Some(seen) = another_gets(address) {
            assert_eq!(seen, "reset", "{name}: another user");
        }
        for _ in 0..8 {
            assert_eq!(ask(address), "hello", "{name}: the owner, afterwards");
        }
    }
}

#[test]
fn an_unchanged_file_server_answers_its_owner_alone() {
    let net = Net::new();
    let pod = net.pod("p");
    std::fs::write(net.dir.path().join("name"), "secret").unwrap();
    let _server = pod.serve_files(net.dir.path().to_owned(), &["8080"]);
    let address = SocketAddr::from((pod.ip, 8080));
    wait_for(address);
    let fetch = format!(
        "import urllib.request as u\ntry: print(u.urlopen('http://{address}/name', timeout=20).read().decode())\nexcept OSError as e: print(type(getattr(e, 'reason', e)).__name__)"
    );
    assert_eq!(net.pod("client").says(&fetch), "secret");
    if let Some(seen) = as_another_user(&fetch) {
        assert!(
            ["ConnectionResetError", "RemoteDisconnected", "BrokenPipeError"].contains(&seen.as_str()),
            "{seen}"
        );
    }
    assert_eq!(net.pod("client").says(&fetch), "secret");
}

/// Prints what `number` connections sent.
fn collector(pod: &Pod, number: usize) -> crate::harness::Server {
    pod.start(&format!(
        "
import socket, time
l = socket.create_server(('', 8080), backlog=200)
print('ready', flush=True); time.sleep(0.5)
for _ in range({number}):
    c, _ = l.accept(); print(c.makefile().read(), flush=True)"
    ))
}

#[test]
fn who_sends_and_hangs_up_is_told_apart() {
    const EACH: usize = 30;
    let net = Net::new();
    let (pod, client) = (net.pod("p"), net.pod("client"));
    let mut server = collector(&pod, 2 * EACH);
    let mut lines = server.0.stdout.take().unwrap();
    let mut ready = [0; 6];
    lines.read_exact(&mut ready).unwrap();
    // what does not arrive is missed below
    let send = |word: &str| {
        format!(
            "
import socket
for _ in range({EACH}):
    try: x = socket.create_connection(('{}', 8080)); x.sendall(b'{word}'); x.close()
    except ConnectionError: pass",
            pod.ip
        )
    };
    // before the server accepts, and while it does
    let evil = send("evil");
    let other = std::thread::spawn({
        let evil = evil.clone();
        move || as_another_user(&evil)
    });
    client.says(&send("good"));
    other.join().unwrap();
    let mut seen = vec![0; EACH * 5];
    lines.read_exact(&mut seen).unwrap();
    as_another_user(&evil);
    client.says(&send("good"));
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    let all = format!("{}{rest}", String::from_utf8(seen).unwrap());
    assert_eq!(all, "good\n".repeat(2 * EACH));
    assert!(server.0.wait().unwrap().success());
}

#[test]
fn a_flood_of_others_does_not_shut_the_owner_out() {
    let net = Net::new();
    let pod = net.pod("p");
    let _server = pod.start(&format!(
        "{ANSWER}serve(socket.create_server(('', 8080), backlog=100))"
    ));
    let address = SocketAddr::from((pod.ip, 8080));
    wait_for(address);
    let flood = format!(
        "
import socket, time
until = time.monotonic() + 2; count = 0
while time.monotonic() < until:
    x = socket.socket()
    try: x.connect(('{}', 8080)); count += 1
    except OSError: pass
    x.close()
print(count)",
        pod.ip
    );
    let flooding = std::thread::spawn(move || as_another_user(&flood));
    let (start, mut answers) = (Instant::now(), 0);
    while start.elapsed() < Duration::from_secs(2) {
        assert_eq!(ask(address), "hello");
        answers += 1;
    }
    println!(
        "answers to the owner beside {:?} connections of another: {answers}",
        flooding.join().unwrap()
    );
    assert_eq!(pod.says("print('still started')"), "still started");
}
