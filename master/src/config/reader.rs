//! Takes a TOML table apart key by key, so that one bad value hides no other. Knows no particular key.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use toml::{Table, Value};

use super::load::ConfigError;

/// Prefix of environment names.
const PREFIX: &str = "LANDLINE_";

/// Hands out values, collects mistakes, and in the end names what nobody asked for.
pub(super) struct Reader {
    table: Table,
    environment: BTreeMap<String, String>,
    pub(super) errors: Vec<ConfigError>,
}

impl Reader {
    pub(super) fn new(table: Table, environment: impl IntoIterator<Item = (String, String)>) -> Self {
        let ours = environment.into_iter().filter(|(name, _)| name.starts_with(PREFIX));
        Self { table, environment: ours.collect(), errors: Vec::new() }
    }

    pub(super) fn error(&mut self, key: &str, message: impl Into<String>) {
        self.errors.push(ConfigError { key: key.to_owned(), message: message.into() });
    }

    /// The value under a dotted key, taken out; the environment goes before the file.
    fn take(&mut self, key: &str) -> Option<Value> {
        let name = format!("{PREFIX}{}", key.to_ascii_uppercase().replace('.', "_"));
        let of_file = take_path(&mut self.table, key);
        self.environment.remove(&name).map(Value::String).or(of_file)
    }

    /// A value that `parse` understands, or `None` when absent or wrong.
    fn parsed<T>(&mut self, key: &str, parse: impl FnOnce(&Value) -> Result<T, String>) -> Option<T> {
        let value = self.take(key)?;
        parse(&value).map_err(|message| self.error(key, message)).ok()
    }

    pub(super) fn text(&mut self, key: &str) -> Option<String> {
        self.parsed(key, |value| text(value).map(str::to_owned))
    }

    pub(super) fn path(&mut self, key: &str) -> Option<PathBuf> {
        self.parsed(key, |value| match text(value)? {
            "" => Err("is empty".to_owned()),
            path => Ok(PathBuf::from(path)),
        })
    }

    pub(super) fn address(&mut self, key: &str, default: SocketAddr) -> SocketAddr {
        self.address_opt(key).unwrap_or(default)
    }

    pub(super) fn address_opt(&mut self, key: &str) -> Option<SocketAddr> {
        let parse = |value: &Value| {
            let text = text(value)?;
            text.parse().map_err(|_| format!("{text:?} is not an address like 127.0.0.1:7800 or [::]:443"))
        };
        self.parsed(key, parse)
    }

    pub(super) fn flag(&mut self, key: &str, default: bool) -> bool {
        let parse = |value: &Value| match value {
            Value::Boolean(flag) => Ok(*flag),
            Value::String(text) if text == "true" => Ok(true),
            Value::String(text) if text == "false" => Ok(false),
            _ => Err("is neither true nor false".to_owned()),
        };
        self.parsed(key, parse).unwrap_or(default)
    }

    /// An integer within bounds.
    pub(super) fn integer(&mut self, key: &str, bounds: std::ops::RangeInclusive<u64>) -> Option<u64> {
        self.parsed(key, |value| {
            let number = match value {
                Value::Integer(number) => u64::try_from(*number).ok(),
                Value::String(text) => text.parse().ok(),
                _ => None,
            };
            let (low, high) = (bounds.start(), bounds.end());
            number.filter(|number| bounds.contains(number)).ok_or(format!("is not a whole number from {low} to {high}"))
        })
    }

    /// Whole seconds within bounds.
    pub(super) fn seconds(&mut self, key: &str, default: u64, bounds: std::ops::RangeInclusive<u64>) -> Duration {
        Duration::from_secs(self.integer(key, bounds).unwrap_or(default))
    }

    /// Whole days, 1 to 100 years.
    pub(super) fn days(&mut self, key: &str, default: u64) -> Duration {
        Duration::from_secs(self.integer(key, 1..=36_500).unwrap_or(default) * 86_400)
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&mut self, key: &str, default: T, words: &[(&str, T)]) -> T {
        let parse = |value: &Value| {
            let text = text(value)?;
            let known = words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(" or ");
            let found = words.iter().find(|(word, _)| *word == text);
            found.map(|(_, value)| *value).ok_or(format!("{text:?} is not {known}"))
        };
        self.parsed(key, parse).unwrap_or(default)
    }

    /// What is left over: unknown keys of the file are mistakes, unknown names of the environment are returned, since
    /// clients and tests use the same prefix.
    pub(super) fn finish(mut self) -> (Vec<ConfigError>, Vec<String>) {
        let mut unknown = Vec::new();
        leaves(&self.table, "", &mut unknown);
        for key in unknown {
            self.error(&key, "is not a known key");
        }
        (self.errors, self.environment.into_keys().collect())
    }
}

fn text(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| format!("is {}, not a string", value.type_str()))
}

/// Takes the value at a dotted path out, and emptied tables with it.
fn take_path(table: &mut Table, key: &str) -> Option<Value> {
    let Some((section, rest)) = key.split_once('.') else { return table.remove(key) };
    let inner = table.get_mut(section)?.as_table_mut()?;
    let value = take_path(inner, rest);
    if inner.is_empty() {
        table.remove(section);
    }
    value
}

fn leaves(table: &Table, prefix: &str, found: &mut Vec<String>) {
    for (key, value) in table {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            // An empty section is harmless.
            Value::Table(inner) => leaves(inner, &path, found),
            _ => found.push(path),
        }
    }
}
