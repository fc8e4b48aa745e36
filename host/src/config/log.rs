//! Which log lines are written.

use tracing_subscriber::EnvFilter;

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// The filter of a level, or of directives (`info,syncline::component=debug`).
///
/// A level alone is that of this program; other crates say no more than `info`, and the chatty ones no more than `warn`,
/// unless a directive names them.
pub fn log_filter(level: &str) -> Result<EnvFilter, String> {
    EnvFilter::try_new(directives(level)?).map_err(|error| error.to_string())
}

fn directives(level: &str) -> Result<String, String> {
    let mut own = "info".to_owned();
    let mut named = Vec::new();
    for directive in level.split(',').map(str::trim).filter(|directive| !directive.is_empty()) {
        if directive.contains('=') {
            named.push(directive);
        } else if LEVELS.contains(&directive.to_ascii_lowercase().as_str()) {
            own = directive.to_ascii_lowercase();
        } else {
            return Err(format!("{directive:?} is neither one of {LEVELS:?} nor TARGET=LEVEL"));
        }
    }
    let position = |level: &str| LEVELS.iter().position(|known| *known == level);
    let at_most = |level: &'static str| if position(&own) > position(level) { level } else { own.as_str() };
    let (others, chatty) = (at_most("info"), at_most("warn"));
    let mut all = vec![
        others.to_owned(),
        format!("wasmtime={chatty}"),
        format!("cranelift={chatty}"),
        format!("hyper={chatty}"),
        format!("syncline={own}"),
    ];
    // The last directive of a target holds.
    all.extend(named.into_iter().map(str::to_owned));
    Ok(all.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_that_of_this_program() {
        assert_eq!(directives("debug").unwrap(), "info,wasmtime=warn,cranelift=warn,hyper=warn,syncline=debug");
        assert_eq!(directives("ERROR").unwrap(), "error,wasmtime=error,cranelift=error,hyper=error,syncline=error");
        assert_eq!(directives("off").unwrap(), "off,wasmtime=off,cranelift=off,hyper=off,syncline=off");
        assert_eq!(directives("warn, hyper=trace").unwrap(), "warn,wasmtime=warn,cranelift=warn,hyper=warn,syncline=warn,hyper=trace");
    }

    #[test]
    fn what_is_neither_level_nor_directive_is_refused() {
        for level in ["verbose", "debug,loud", "a=b=c", "syncline=loud"] {
            assert!(log_filter(level).is_err(), "{level}");
        }
        for level in ["info", "", "info,syncline::component=debug", "trace"] {
            assert!(log_filter(level).is_ok(), "{level}");
        }
    }
}
