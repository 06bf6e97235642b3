//! The tests' firewall site as a program, for tests in other languages and for trying by hand: `firewall-site [NAME [PORT]]`
//! prints its port and runs until its input ends.
#![allow(clippy::print_stdout, reason = "its port is what it prints")]

use landline_tests::firewall_site::FirewallSite;
use tokio::io::AsyncReadExt as _;

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_else(|| "firewall".to_owned());
    let port = arguments.next().and_then(|port| port.parse().ok()).unwrap_or(0);
    let site = FirewallSite::start_on(&name, port).await;
    println!("{}", site.port);
    let mut rest = Vec::new();
    let _ = tokio::io::stdin().read_to_end(&mut rest).await;
}
