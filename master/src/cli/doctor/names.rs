//! Names: the one in join tokens, and a name below the gateway's domain as a browser would ask for it.

use std::{net::IpAddr, time::Duration};

use proto::check::Check;
use tokio::net::lookup_host;

use crate::config::Config;

const WITHIN: Duration = Duration::from_secs(5);
/// Below which every name is this very host, without a resolver.
const LOCAL: &str = "localhost";

pub(super) async fn examine(config: &Config) -> Vec<Check> {
    let (address, gateway) = tokio::join!(public_address(config), gateway(config));
    vec![address, gateway]
}

async fn public_address(config: &Config) -> Check {
    const NAME: &str = "public.address";
    let Some(address) = &config.public.address else {
        let fix = "set it to the name and port at which agents reach this host: it stands in every join token";
        return Check::warn(NAME, "not set: tokens name this host by its own name", fix);
    };
    match resolve(address).await {
        Ok(found) => Check::ok(NAME, format!("{address} is {}", shown(&found))),
        Err(why) => {
            Check::fail(NAME, format!("{address}: {why}"), "a record for this name in the DNS, or another name here")
        }
    }
}

/// Every tunnel gets a name of its own: a wildcard record has to answer for it.
async fn gateway(config: &Config) -> Check {
    const NAME: &str = "gateway.domain";
    let domain = &config.gateway.domain;
    if domain == LOCAL || domain.ends_with(".localhost") {
        return Check::ok(NAME, format!("{domain}: browsers on this host reach it, and no others"));
    }
    let name = format!("landline-doctor.{domain}");
    match resolve(&format!("{name}:443")).await {
        Ok(found) => Check::ok(NAME, format!("{name} is {}", shown(&found))),
        Err(why) => {
            let fix = format!("a wildcard record *.{domain} that leads to this host, or to the proxy in front of it");
            Check::fail(NAME, format!("{name}: {why}"), fix)
        }
    }
}

async fn resolve(address: &str) -> Result<Vec<IpAddr>, String> {
    match tokio::time::timeout(WITHIN, lookup_host(address)).await {
        Ok(Ok(found)) => Ok(found.map(|address| address.ip()).collect()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {WITHIN:?}")),
    }
}

fn shown(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
