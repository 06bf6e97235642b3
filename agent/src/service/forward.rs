//! A forward: dial the target, then carry bytes until both sides ended. The name is resolved once, here; every address it
//! gives must pass the policy, and those that do are tried in order.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use proto::{
    code::Code,
    net::{
        credit::LineCredit,
        relay::{Meter, relay},
        stream::FrameStream,
    },
    open::{Refused, Target},
};
use tokio::{
    net::{TcpStream, lookup_host},
    time::Instant,
};

use super::answer;
use crate::policy::{Host, Policy};

/// Time for the name and all its addresses together.
const DIAL_WITHIN: Duration = Duration::from_secs(10);
/// Most addresses tried of one name.
const ADDRESSES_MAX: usize = 8;

/// Serves one forward until it ended, and says how, and what it carried. Dropping the future resets both sides.
pub async fn serve(
    target: &Target,
    mut stream: FrameStream,
    policy: &Policy,
    credit: &Arc<LineCredit>,
) -> (Code, String) {
    let (socket, peer) = match dial(target, policy).await {
        Ok(dialled) => dialled,
        Err(refused) => {
            answer::refuse(stream, refused.code, &refused.message).await;
            return (refused.code, refused.message);
        }
    };
    // Without it every keystroke through the tunnel waits for an acknowledgement; a failure costs only that.
    let _ = socket.set_nodelay(true);
    if answer::open(&mut stream, Some(peer.to_string())).await.is_err() {
        return (Code::ABANDONED, String::new());
    }
    let (send, recv) = stream.into_halves();
    let meter = Meter::default();
    let code = relay(socket, send, recv, credit, &meter).await.err().unwrap_or(Code::DONE);
    let (to_target, to_master) = (meter.to_socket(), meter.to_stream());
    tracing::debug!(%peer, to_target, to_master, code = code.word(), "forward ended");
    (code, format!("at {peer}, {to_target} bytes in, {to_master} out"))
}

/// Connects to the first permitted address that answers.
async fn dial(target: &Target, policy: &Policy) -> Result<(TcpStream, SocketAddr), Refused> {
    let deadline = Instant::now() + DIAL_WITHIN;
    let host = Host::read(&target.host)
        .map_err(|error| refused(Code::NAME_NOT_FOUND, format!("{:?}: {error}", target.host)))?;
    let addresses = permitted(policy, &host, resolve(target, &host, deadline).await?)?;
    let mut failures = Vec::new();
    for (tried, address) in addresses.iter().enumerate() {
        // Each address gets its share of what is left, so that a silent first one leaves time for the second.
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(addresses.len() - tried).unwrap_or(1);
        match tokio::time::timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(socket)) => return Ok((socket, *address)),
            Ok(Err(error)) => failures.push(failure(*address, &error)),
            Err(_) => failures.push(refused(Code::TARGET_TIMEOUT, format!("{address} did not answer in time"))),
        }
    }
    Err(most_telling(failures))
}

/// Every address the host has, in order. A failure here never depends on the policy.
async fn resolve(target: &Target, host: &Host, deadline: Instant) -> Result<Vec<SocketAddr>, Refused> {
    match host {
        Host::Address(address) => Ok(vec![(*address, target.port).into()]),
        Host::Localhost => {
            let both: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
            Ok(both.map(|address| (address, target.port).into()).to_vec())
        }
        Host::Name(_) | Host::Scoped => {
            let name = target.host.as_str();
            let not_found = |why: String| refused(Code::NAME_NOT_FOUND, format!("{name:?} does not resolve: {why}"));
            match tokio::time::timeout_at(deadline, lookup_host((name, target.port))).await {
                Ok(Ok(found)) => Ok(found.take(ADDRESSES_MAX).collect()),
                Ok(Err(error)) => Err(not_found(error.to_string())),
                Err(_) => Err(not_found("the resolver did not answer in time".into())),
            }
        }
    }
}

fn permitted(policy: &Policy, host: &Host, addresses: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Refused> {
    let mut denied = None;
    let mut judge = |address: &SocketAddr| match policy.permits(host, address.ip(), address.port()) {
        Ok(_) => true,
        Err(denial) => {
            denied.get_or_insert(denial);
            false
        }
    };
    let permitted: Vec<_> = addresses.into_iter().filter(&mut judge).collect();
    match (permitted.is_empty(), denied) {
        (false, _) => Ok(permitted),
        (true, Some(denial)) => Err(refused(Code::POLICY, denial.to_string())),
        (true, None) => Err(refused(Code::NAME_NOT_FOUND, "the name has no address".into())),
    }
}

fn refused(code: Code, message: String) -> Refused {
    Refused { code, message }
}

fn failure(address: SocketAddr, error: &io::Error) -> Refused {
    let code = match error.kind() {
        io::ErrorKind::ConnectionRefused => Code::TARGET_REFUSED,
        io::ErrorKind::TimedOut => Code::TARGET_TIMEOUT,
        _ => Code::TARGET_UNREACHABLE,
    };
    let hint = if code == Code::TARGET_REFUSED { "; is a server listening there?" } else { "" };
    refused(code, format!("{address}: {error}{hint}"))
}

/// Of several failures the one that says most: a refusal came from the machine itself, silence from nobody.
fn most_telling(failures: Vec<Refused>) -> Refused {
    let rank = |refused: &Refused| match refused.code {
        Code::TARGET_REFUSED => 0,
        Code::TARGET_TIMEOUT => 1,
        _ => 2,
    };
    let none = || refused(Code::TARGET_UNREACHABLE, "no address could be tried in time".into());
    failures.into_iter().min_by_key(rank).unwrap_or_else(none)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PolicyFile;

    fn default_policy() -> Policy {
        Policy::load(&PolicyFile::Default("/nonexistent/policy.toml".into()))
    }

    fn target(host: &str, port: u16) -> Target {
        Target { host: host.into(), port }
    }

    #[tokio::test]
    async fn a_listening_target_is_dialled_in_any_spelling_of_localhost() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        for host in ["localhost", "127.0.0.1", "127.1", "::ffff:127.0.0.1"] {
            let (_, peer) = dial(&target(host, port), &default_policy()).await.unwrap();
            assert_eq!(peer, listener.local_addr().unwrap(), "{host}");
        }
    }

    #[tokio::test]
    async fn failures_have_their_codes() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let code = async |host: &str, port: u16| dial(&target(host, port), &default_policy()).await.unwrap_err().code;
        assert_eq!(code("localhost", closed).await, Code::TARGET_REFUSED);
        assert_eq!(code("169.254.169.254", 80).await, Code::POLICY);
        assert_eq!(code("192.0.2.1", 80).await, Code::POLICY);
        assert_eq!(code("1.2.3.4.5", 80).await, Code::NAME_NOT_FOUND);
    }

    #[test]
    fn a_refusal_says_more_than_silence() {
        let codes = [Code::TARGET_UNREACHABLE, Code::TARGET_REFUSED, Code::TARGET_TIMEOUT];
        let failures = codes.map(|code| refused(code, String::new())).to_vec();
        assert_eq!(most_telling(failures).code, Code::TARGET_REFUSED);
        assert_eq!(most_telling(Vec::new()).code, Code::TARGET_UNREACHABLE);
    }
}
