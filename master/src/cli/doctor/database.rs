//! The database: that it answers and is whole.

use proto::check::Check;

use crate::{
    config::{Config, Database},
    store::soundness::{Soundness, soundness},
};

pub(super) async fn examine(config: &Config) -> Vec<Check> {
    const NAME: &str = "database";
    let what = match &config.database {
        Database::Sqlite(path) => path.display().to_string(),
        Database::Postgres(_) => "PostgreSQL".to_owned(),
    };
    vec![match soundness(&config.database).await {
        Ok(Soundness::Sound) => Check::ok(NAME, format!("{what} answers and is whole")),
        Ok(Soundness::Answers) => Check::ok(NAME, format!("{what} answers")),
        Ok(Soundness::Absent) => {
            Check::warn(NAME, format!("{what} is not there yet"), "none: it is made at the first start")
        }
        Ok(Soundness::Unfinished(within)) => {
            let fix = "let `landline backup` check a copy of it when there is time";
            Check::warn(NAME, format!("{what} answers; its check was not through within {within:?}"), fix)
        }
        Ok(Soundness::Damaged(how)) => Check::fail(
            NAME,
            format!("{what} is damaged: {how}"),
            "stop the master and restore a backup: docs/tasks/backup.md",
        ),
        Err(error) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            let fix = match &config.database {
                Database::Sqlite(_) => "is it a database, and may this user read it?",
                Database::Postgres(_) => "is the server up, and are name, password and address in `database` right?",
            };
            Check::fail(NAME, format!("{what}: {error}{cause}"), fix)
        }
    }]
}
