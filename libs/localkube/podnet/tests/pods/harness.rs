//! Pods for the tests, and what stands around them.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use localkube_podnet::{AddressPool, Protocol, ServiceKey, ServiceTable, Supervisor, install_filter};

/// The system's own Python where there is one, since an ordinary user must be able to run it too.
pub fn python() -> &'static str {
    if Path::new("/usr/bin/python3").exists() {
        "/usr/bin/python3"
    } else {
        "python3"
    }
}

type Work = Box<dyn FnOnce() + Send>;

/// A Pod: a thread under the filter that starts its processes, and a thread that answers for it.
pub struct Pod {
    pub ip: Ipv4Addr,
    start: Option<mpsc::Sender<Work>>,
    stop: Option<OwnedFd>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Pod {
    pub fn new(ip: Ipv4Addr, table: &Path) -> Self {
        let (start, work) = mpsc::channel::<Work>();
        let (ready, listener) = mpsc::channel();
        let spawner = std::thread::spawn(move || {
            ready.send(install_filter().unwrap()).unwrap();
            work.into_iter().for_each(|w| w());
        });
        let supervisor = Supervisor::new(listener.recv().unwrap(), ip, table.to_owned())
            .with_resolv_conf(table.with_file_name("resolv.conf"));
        let (read, write) = std::io::pipe().unwrap();
        let answerer = std::thread::spawn(move || supervisor.run(read.as_fd()).unwrap());
        Self {
            ip,
            start: Some(start),
            stop: Some(write.into()),
            threads: vec![spawner, answerer],
        }
    }

    /// Runs something on the thread under the filter.
    pub fn inside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (send, receive) = mpsc::channel();
        self.start
            .as_ref()
            .unwrap()
            .send(Box::new(move || drop(send.send(work()))))
            .unwrap();
        receive.recv().unwrap()
    }

    pub fn python(&self, script: &str) -> Output {
        let script = script.to_owned();
        self.inside(move || Command::new(python()).args(["-c", &script]).output().unwrap())
    }

    pub fn says(&self, script: &str) -> String {
        let out = self.python(script);
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    }

    pub fn serve_files(&self, dir: PathBuf, arguments: &'static [&'static str]) -> Server {
        let child = self.inside(move || {
            Command::new(python())
                .args(["-m", "http.server"])
                .args(arguments)
                .current_dir(dir)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        });
        Server(child)
    }

    /// Starts a Python program in the Pod.
    pub fn start(&self, script: &str) -> Server {
        let script = script.to_owned();
        Server(self.inside(move || {
            Command::new(python())
                .args(["-c", &script])
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        }))
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        drop(self.start.take());
        drop(self.stop.take());
        for thread in self.threads.drain(..) {
            assert!(thread.join().is_ok() || std::thread::panicking());
        }
    }
}

pub struct Server(pub Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub struct Net {
    pub dir: tempfile::TempDir,
    pub pool: AddressPool,
}

impl Net {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pool = AddressPool::open(dir.path()).unwrap();
        Self { dir, pool }
    }

    pub fn table(&self) -> PathBuf {
        self.dir.path().join("services")
    }

    pub fn pod(&self, uid: &str) -> Pod {
        Pod::new(self.pool.lease(uid).unwrap(), &self.table())
    }

    pub fn publish(&self, services: &[(&str, Vec<SocketAddr>)]) {
        let mut table = ServiceTable::default();
        for (address, endpoints) in services {
            table.insert(
                ServiceKey {
                    protocol: Protocol::Tcp,
                    address: address.parse().unwrap(),
                },
                endpoints.clone(),
            );
        }
        table.publish(&self.table()).unwrap();
    }
}

pub fn wait_for(address: SocketAddr) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err() {
        assert!(Instant::now() < deadline, "nothing listens on {address}");
        std::thread::yield_now();
    }
}
