//! Where settings come from: gathers file, `.env`, environment and command line into texts with their origin, and names
//! what it could not read or does not know. What the texts mean is not decided here.

use std::{collections::BTreeMap, path::PathBuf};

/// A setting: its key in the file, and its names in the environment, the weightiest first.
struct Key {
    name: &'static str,
    variables: &'static [&'static str],
}

const fn key(name: &'static str, variables: &'static [&'static str]) -> Key {
    Key { name, variables }
}

const KEYS: &[Key] = &[
    key("connection_mode", &["CONNECTION_MODE"]),
    key("master", &["MASTER_TUNNEL_URL", "MASTER_URL"]),
    key("agent_id", &["AGENT_ID"]),
    key("agent_secret", &["AGENT_SECRET"]),
    key("master_pin", &["MASTER_PIN"]),
    key("master_ca_file", &["MASTER_CA_FILE"]),
    key("join_token", &["LANDLINE_JOIN_TOKEN", "JOIN_TOKEN"]),
    key("join_token_file", &["LANDLINE_JOIN_TOKEN_FILE"]),
    key("state_dir", &["LANDLINE_STATE_DIR"]),
    key("actions_dir", &["LANDLINE_ACTIONS_DIR"]),
    key("policy_file", &["LANDLINE_POLICY_FILE"]),
    key("mode", &["LANDLINE_MODE"]),
    key("check_interval_s", &["LANDLINE_CHECK_INTERVAL_S"]),
    key("linger_s", &["LANDLINE_LINGER_S"]),
    key("carrier", &["LANDLINE_CARRIER"]),
    key("https_proxy", &["HTTPS_PROXY", "https_proxy"]),
    key("no_proxy", &["NO_PROXY", "no_proxy"]),
    key("keep_alive_s", &["LANDLINE_KEEP_ALIVE_S"]),
    key("congestion", &["LANDLINE_CONGESTION"]),
    key("gso", &["LANDLINE_GSO"]),
    key("worker_threads", &["LANDLINE_WORKER_THREADS"]),
    key("own_log_mb", &["LANDLINE_OWN_LOG_MB"]),
    key("log_level", &["LANDLINE_LOG"]),
    key("log_format", &["LANDLINE_LOG_FORMAT"]),
];

/// Everything settings may come from. The caller brings it, so that tests need no process environment.
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    /// The file, and whether it was named (then it must exist).
    pub file: PathBuf,
    pub file_named: bool,
    /// The `.env` file, if there is one to look at.
    pub dotenv: Option<PathBuf>,
    pub environment: Vec<(String, String)>,
    /// From the command line: keys of the file.
    pub overrides: Vec<(&'static str, String)>,
}

/// One setting's text and where it came from.
pub(super) struct Setting {
    pub(super) text: String,
    pub(super) origin: String,
}

#[derive(Default)]
pub(super) struct Settings {
    values: BTreeMap<&'static str, Setting>,
    mistakes: Vec<String>,
}

impl Settings {
    pub(super) fn gather(inputs: &Inputs) -> Self {
        let mut settings = Self::default();
        settings.read_file(inputs);
        settings.read_dotenv(inputs);
        settings.read_variables(&inputs.environment, "the environment");
        for (name, text) in &inputs.overrides {
            settings.set(name, text.clone(), "the command line".into());
        }
        settings
    }

    pub(super) fn take(&mut self, key: &'static str) -> Option<Setting> {
        debug_assert!(KEYS.iter().any(|known| known.name == key), "{key} is not in KEYS");
        self.values.remove(key).filter(|setting| !setting.text.trim().is_empty())
    }

    pub(super) fn take_mistakes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.mistakes)
    }

    fn set(&mut self, name: &str, text: String, origin: String) {
        if let Some(key) = KEYS.iter().find(|key| key.name == name) {
            self.values.insert(key.name, Setting { text, origin });
        }
    }

    fn read_file(&mut self, inputs: &Inputs) {
        let shown = inputs.file.display().to_string();
        let text = match std::fs::read_to_string(&inputs.file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !inputs.file_named => return,
            Err(error) => return self.mistakes.push(format!("{shown}: {error}")),
        };
        let table = match text.parse::<toml::Table>() {
            Ok(table) => table,
            // Only the place and the reason: the text around it may hold a secret.
            Err(error) => return self.mistakes.push(format!("{shown}: {}", error.message())),
        };
        for (name, value) in table {
            match (KEYS.iter().any(|key| key.name == name), value) {
                (false, _) => self.mistakes.push(format!("{shown}: unknown key {name:?}; known are {}", known_keys())),
                (true, toml::Value::String(text)) => self.set(&name, text, shown.clone()),
                (true, toml::Value::Integer(number)) => self.set(&name, number.to_string(), shown.clone()),
                (true, toml::Value::Boolean(flag)) => self.set(&name, flag.to_string(), shown.clone()),
                (true, other) => self.mistakes.push(format!("{shown}: {name} cannot be a {}", other.type_str())),
            }
        }
    }

    fn read_dotenv(&mut self, inputs: &Inputs) {
        let Some(path) = &inputs.dotenv else { return };
        let shown = path.display();
        let lines = match dotenvy::from_path_iter(path) {
            Ok(lines) => lines,
            // A service that starts in a folder it may not enter has no `.env` there, as far as it can tell.
            Err(dotenvy::Error::Io(error))
                if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied) =>
            {
                return;
            }
            Err(_) => return self.mistakes.push(format!("{shown}: cannot be read")),
        };
        let mut variables = Vec::new();
        for (number, line) in lines.enumerate() {
            match line {
                Ok(variable) => variables.push(variable),
                Err(_) => self.mistakes.push(format!("{shown}: assignment {} is not NAME=value", number + 1)),
            }
        }
        self.read_variables(&variables, &shown.to_string());
    }

    fn read_variables(&mut self, variables: &[(String, String)], origin: &str) {
        for key in KEYS {
            let named = |name: &&str| variables.iter().find(|(variable, _)| variable == *name);
            if let Some((name, text)) = key.variables.iter().find_map(named).filter(|(_, text)| !text.is_empty()) {
                self.set(key.name, text.clone(), format!("{name} in {origin}"));
            }
        }
    }
}

fn known_keys() -> String {
    KEYS.iter().map(|key| key.name).collect::<Vec<_>>().join(", ")
}
