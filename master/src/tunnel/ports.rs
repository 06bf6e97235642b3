//! Ports and sockets of tunnels: which port a tunnel gets, bound on every loopback address, and for how long nobody
//! else gets it afterwards. Never reports a port that it did not bind itself.

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::RangeInclusive,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use proto::{
    id::{AgentId, TunnelId},
    open::Target,
};
use tokio::{
    net::{TcpListener, UnixListener},
    time::Instant,
};

/// Longest path of a unix socket on every system we run on, bytes.
const SOCKET_PATH_MAX: usize = 103;

/// Why no listener could be had.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    #[error("every port of {}–{} is in use, resting after a close, or taken by another program", .0.start(), .0.end())]
    Full(RangeInclusive<u16>),
    #[error("cannot listen on a loopback port")]
    Bind(#[source] io::Error),
    #[error("cannot make the unix socket {path}")]
    Socket { path: PathBuf, source: io::Error },
    #[error("the path of a unix socket is longer than {SOCKET_PATH_MAX} bytes: {0}; choose a shorter data folder")]
    PathTooLong(PathBuf),
}

/// Whom a port belongs to: it is sticky for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortOwner {
    pub agent: AgentId,
    pub target: Target,
}

/// The allocator of one master.
#[derive(Debug)]
pub struct Ports {
    range: RangeInclusive<u16>,
    /// How long a closed port is kept from other tunnels (SECURITY R40).
    quarantine: Duration,
    /// One entry per port that was ever used: bounded by the range.
    uses: Mutex<BTreeMap<u16, Use>>,
}

#[derive(Debug)]
struct Use {
    owner: PortOwner,
    /// `None` while held.
    closed: Option<Instant>,
}

/// Keeps a port ours. Dropping it puts the port to rest; close the sockets first.
#[derive(Debug)]
pub struct Lease {
    ports: Arc<Ports>,
    port: u16,
}

/// Bound sockets and the name they have in the API.
#[derive(Debug)]
pub struct Bound {
    pub listen: String,
    pub port: Option<u16>,
    pub sockets: Sockets,
}

/// The sockets of one tunnel. Dropping closes them, and only then frees the port or removes the path.
#[derive(Debug)]
pub enum Sockets {
    Tcp { v4: TcpListener, v6: Option<TcpListener>, lease: Lease },
    Unix { socket: UnixListener, path: SocketPath },
}

/// Removes a socket's path on drop.
#[derive(Debug)]
pub struct SocketPath(PathBuf);

impl Ports {
    pub fn new(range: RangeInclusive<u16>, quarantine: Duration) -> Arc<Self> {
        Arc::new(Self { range, quarantine, uses: Mutex::default() })
    }

    /// Remembers from an earlier run who had a port and how long ago it was closed.
    pub fn remember(&self, port: u16, owner: PortOwner, closed_ago: Duration) {
        if self.range.contains(&port) {
            let now = Instant::now();
            // A clock that cannot go back so far makes it rest once more.
            let closed = now.checked_sub(closed_ago).unwrap_or(now);
            self.lock().entry(port).or_insert(Use { owner, closed: Some(closed) });
        }
    }

    /// Binds a port for `owner`: the one they had where it is free, else a fresh one, else the one that rested longest.
    pub fn bind(self: &Arc<Self>, owner: &PortOwner) -> Result<Bound, PortError> {
        self.bind_again(owner, None)
    }

    /// Like [`bind`](Self::bind), but tries `wanted` before all others, if it is free and in the range.
    pub fn bind_again(self: &Arc<Self>, owner: &PortOwner, wanted: Option<u16>) -> Result<Bound, PortError> {
        let mut uses = self.lock();
        let mut candidates = self.candidates(&uses, owner);
        if let Some(place) = candidates.iter().position(|port| Some(*port) == wanted) {
            candidates[..=place].rotate_right(1);
        }
        for port in candidates {
            let Some((v4, v6)) = bind_loopback(port).map_err(PortError::Bind)? else { continue };
            uses.insert(port, Use { owner: owner.clone(), closed: None });
            let lease = Lease { ports: self.clone(), port };
            return Ok(Bound {
                listen: SocketAddr::from((Ipv4Addr::LOCALHOST, port)).to_string(),
                port: Some(port),
                sockets: Sockets::Tcp { v4, v6, lease },
            });
        }
        Err(PortError::Full(self.range.clone()))
    }

    /// In the order to try them. Ports in use and ports resting from somebody else are not among them.
    fn candidates(&self, uses: &BTreeMap<u16, Use>, owner: &PortOwner) -> Vec<u16> {
        let now = Instant::now();
        let rest = |closed: Instant| now.duration_since(closed);
        let mut owned = Vec::new();
        let mut rested = Vec::new();
        for (&port, Use { owner: had, closed }) in uses {
            match closed {
                Some(closed) if had == owner => owned.push((rest(*closed), port)),
                Some(closed) if rest(*closed) >= self.quarantine => rested.push((rest(*closed), port)),
                Some(_) | None => {}
            }
        }
        // Their newest one first; of other people's the one that rested longest.
        owned.sort_unstable();
        rested.sort_unstable_by(|a, b| b.cmp(a));
        let fresh = self.range.clone().filter(|port| !uses.contains_key(port));
        owned.into_iter().map(|(_, port)| port).chain(fresh).chain(rested.into_iter().map(|(_, port)| port)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u16, Use>> {
        self.uses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(used) = self.ports.lock().get_mut(&self.port) {
            used.closed = Some(Instant::now());
        }
    }
}

impl Drop for SocketPath {
    fn drop(&mut self) {
        // A path that is gone already is what was wanted.
        let _ = std::fs::remove_file(&self.0);
    }
}

type Pair = (TcpListener, Option<TcpListener>);

/// Binds 127.0.0.1 and, where the system has it, ::1; `None` if another program holds either of the two.
fn bind_loopback(port: u16) -> io::Result<Option<Pair>> {
    let v4 = match listen((Ipv4Addr::LOCALHOST, port).into()) {
        Ok(socket) => socket,
        Err(error) if is_taken(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    match listen((Ipv6Addr::LOCALHOST, port).into()) {
        Ok(v6) => Ok(Some((v4, Some(v6)))),
        Err(error) if is_taken(&error) => Ok(None),
        Err(error) if lacks_ipv6(&error) => Ok(Some((v4, None))),
        Err(error) => Err(error),
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    // Connections of an earlier tunnel may linger in TIME_WAIT; a listening stranger still makes this fail.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(LISTEN_BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Connections the system holds while the accept loop is busy.
const LISTEN_BACKLOG: i32 = 1024;

fn is_taken(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied)
}

fn lacks_ipv6(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}

/// Removes what a killed master left in its folder of sockets. A path that stays is tried again when its tunnel binds.
pub fn remove_stale_sockets(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().extension().is_some_and(|ending| ending == "sock") {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Binds a unix socket that its owner alone may connect to. `dir` is 0700 and ours, so nobody slips in between the bind
/// and the change of mode.
pub fn bind_unix(dir: &Path, id: TunnelId) -> Result<Bound, PortError> {
    let path = dir.join(format!("{id}.sock"));
    if path.as_os_str().len() > SOCKET_PATH_MAX {
        return Err(PortError::PathTooLong(path));
    }
    let failed = |source| PortError::Socket { path: path.clone(), source };
    if let Err(error) = std::fs::remove_file(&path)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(failed(error));
    }
    let socket = UnixListener::bind(&path).map_err(failed)?;
    let guard = SocketPath(path.clone());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    let listen = format!("unix:{}", path.display());
    Ok(Bound { listen, port: None, sockets: Sockets::Unix { socket, path: guard } })
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUARANTINE: Duration = Duration::from_secs(120);

    fn owner(agent: &str, port: u16) -> PortOwner {
        PortOwner { agent: agent.parse().unwrap(), target: Target { host: "localhost".into(), port } }
    }

    /// A range of `count` ports that nobody held a moment ago.
    fn free_range(count: u16) -> RangeInclusive<u16> {
        let mut start = 20_000 + (std::process::id() % 500) as u16 * 16;
        loop {
            let range = start..=start + count - 1;
            if range.clone().all(|port| matches!(bind_loopback(port), Ok(Some(_)))) {
                return range;
            }
            start += count;
        }
    }

    fn port(bound: &Bound) -> u16 {
        bound.port.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_port_rests_for_others_and_returns_to_its_owner_at_once() {
        let ports = Ports::new(free_range(2), QUARANTINE);
        let (one, two) = (owner("a", 1), owner("b", 2));
        let first = ports.bind(&one).unwrap();
        let had = port(&first);
        drop(first);
        let other = ports.bind(&two).unwrap();
        assert_ne!(port(&other), had);
        assert_eq!(port(&ports.bind(&one).unwrap()), had);
        let third = owner("c", 3);
        assert!(matches!(ports.bind(&third), Err(PortError::Full(_))));
        tokio::time::advance(QUARANTINE - Duration::from_millis(1)).await;
        assert!(matches!(ports.bind(&third), Err(PortError::Full(_))));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(port(&ports.bind(&third).unwrap()), had);
    }

    #[tokio::test]
    async fn both_loopback_addresses_are_bound_and_freed() {
        let ports = Ports::new(free_range(1), QUARANTINE);
        let bound = ports.bind(&owner("a", 1)).unwrap();
        let Sockets::Tcp { v4, v6, .. } = &bound.sockets else { panic!("tcp") };
        assert!(v4.local_addr().unwrap().ip().is_loopback());
        if let Some(v6) = v6 {
            assert_eq!(v6.local_addr().unwrap().port(), port(&bound));
        }
        assert!(std::net::TcpListener::bind(("127.0.0.1", port(&bound))).is_err());
        let port = port(&bound);
        drop(bound);
        assert!(std::net::TcpListener::bind(("127.0.0.1", port)).is_ok());
    }

    #[tokio::test]
    async fn squatters_on_all_but_one_leave_that_one() {
        let range = free_range(4);
        let squat = |address: &str, port: u16| std::net::TcpListener::bind((address, port)).unwrap();
        let start = *range.start();
        let mut squatters = vec![squat("127.0.0.1", start), squat("0.0.0.0", start + 1)];
        match std::net::TcpListener::bind(("::1", start + 2)) {
            Ok(v6) => squatters.push(v6),
            Err(_) => squatters.push(squat("127.0.0.1", start + 2)),
        }
        let ports = Ports::new(range, QUARANTINE);
        let bound = ports.bind(&owner("a", 1)).unwrap();
        assert_eq!(port(&bound), start + 3);
        assert!(matches!(ports.bind(&owner("b", 1)), Err(PortError::Full(_))));
        drop(squatters);
        assert_eq!(port(&ports.bind(&owner("b", 1)).unwrap()), start);
    }

    #[tokio::test(start_paused = true)]
    async fn what_an_earlier_run_held_is_remembered() {
        let range = free_range(2);
        let ports = Ports::new(range.clone(), QUARANTINE);
        ports.remember(*range.start(), owner("a", 1), Duration::from_secs(5));
        let other = ports.bind(&owner("b", 1)).unwrap();
        assert_eq!(port(&other), *range.end());
        assert_eq!(port(&ports.bind(&owner("a", 1)).unwrap()), *range.start());
    }

    #[tokio::test]
    async fn a_unix_socket_is_its_owners_alone_and_leaves_no_path() {
        let dir = tempfile::tempdir().unwrap();
        let bound = bind_unix(dir.path(), TunnelId::random()).unwrap();
        let path = PathBuf::from(bound.listen.strip_prefix("unix:").unwrap());
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        drop(bound);
        assert!(!path.exists());
        let deep = dir.path().join("x".repeat(80));
        assert!(matches!(bind_unix(&deep, TunnelId::random()), Err(PortError::PathTooLong(_))));
    }
}
