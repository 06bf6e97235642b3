//! A tunnel's pages in a browser: the link that leads there, and the certificate that stands behind it.

use anyhow::bail;

use super::{Context, output, path};
use crate::api::dto::tunnel::{NewPin, Pin, Ticket};

/// Prints a fresh link.
pub(super) async fn print_link(context: &Context, id: &str) -> anyhow::Result<()> {
    let ticket: Ticket = context.client.post_once(&format!("{}/ticket", path(id)), &serde_json::json!({})).await?;
    output::print(context.format, &ticket, |ticket| ticket.url.clone())?;
    eprintln!("the link works once, within a minute; a new one: landline tunnel web {id}");
    Ok(())
}

/// Trusts `sha256`, or shows what could be trusted.
pub(super) async fn trust(context: &Context, id: &str, sha256: Option<String>) -> anyhow::Result<()> {
    let path = format!("{}/pin", path(id));
    let Some(sha256) = sha256 else {
        let pin: Pin = context.client.get(&path, &()).await?;
        return Ok(output::print(context.format, &pin, |pin| show(pin, id))?);
    };
    let sha256: String = sha256.chars().filter(char::is_ascii_hexdigit).collect::<String>().to_ascii_lowercase();
    if sha256.len() != 64 {
        bail!("a SHA-256 has 64 hex digits; the page that warned shows it, and so does: landline tunnel trust {id}");
    }
    let pin: Pin = context.client.post(&path, &NewPin { sha256 }).await?;
    Ok(output::print(context.format, &pin, |pin| show(pin, id))?)
}

fn show(pin: &Pin, id: &str) -> String {
    let trusted = pin.sha256.as_deref().unwrap_or("none yet: the first one shown will be trusted");
    let mut text = format!("trusted  {trusted}");
    if let Some(offered) = &pin.offered_sha256 {
        text.push_str(&format!(
            "\noffered  {offered}\n\nIf the new one is right: landline tunnel trust {id} {offered}"
        ));
    }
    text
}
