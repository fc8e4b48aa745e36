//! What most commands take: the configuration, and what goes over it.

use std::path::PathBuf;

use clap::Args;
use syncline::config::{Config, LogFormat, Overrides};

/// The configuration, and what goes over it.
#[derive(Args, Clone, Default)]
pub struct ServeArguments {
    /// Configuration file (TOML, or JSON by its ending). Without one: the demonstration.
    #[arg(long, env = "SYNCLINE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address of the main listener; port 0 takes a free one.
    #[arg(long, env = "SYNCLINE_LISTEN", value_name = "ADDRESS")]
    listen: Option<String>,
    /// Folder of the embedded defaults.
    #[arg(long, env = "SYNCLINE_DATA", value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// SQL backend: sqlite:FOLDER, or sqlite:FOLDER?synchronous=off (not durable).
    #[arg(long, env = "SYNCLINE_EXECUTOR", value_name = "URL", hide_env_values = true)]
    executor: Option<String>,
    /// Object storage: file:FOLDER or memory:.
    #[arg(long, env = "SYNCLINE_STORAGE_OBJECTS", value_name = "URL", hide_env_values = true)]
    storage_objects: Option<String>,
    /// Key-value storage: sqlite:FOLDER or memory:.
    #[arg(long, env = "SYNCLINE_STORAGE_KEYVALUE", value_name = "URL", hide_env_values = true)]
    storage_keyvalue: Option<String>,
    /// Publications between processes: memory:.
    #[arg(long, env = "SYNCLINE_PUBSUB", value_name = "URL", hide_env_values = true)]
    pubsub: Option<String>,
    /// Opens what is meant for whoever runs the server.
    #[arg(long, env = "SYNCLINE_ADMIN_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    admin_token: Option<String>,
    /// How log lines look.
    #[arg(long, env = "SYNCLINE_LOG_FORMAT", value_enum)]
    log_format: Option<LogFormat>,
    /// Log level, or directives such as info,syncline::component=debug.
    #[arg(long, env = "SYNCLINE_LOG", value_name = "LEVEL")]
    log_level: Option<String>,
}

impl ServeArguments {
    /// The configuration with everything that goes over it.
    pub fn config(&self) -> anyhow::Result<Config> {
        let config = match &self.config {
            Some(path) => Config::read(path)?,
            None => Config::demonstration()?,
        };
        let this = self.clone();
        Ok(config.overridden(Overrides {
            listen: this.listen,
            data: this.data,
            executor: this.executor,
            objects: this.storage_objects,
            keyvalue: this.storage_keyvalue,
            pubsub: this.pubsub,
            admin_token: this.admin_token,
            log_format: this.log_format,
            log_level: this.log_level,
        }))
    }
}
