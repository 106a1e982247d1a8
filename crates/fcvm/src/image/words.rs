//! A command on the command line, in one argument.

use std::str::FromStr;

/// Words of a command: a JSON array of strings, or words as a shell splits
/// them. Quotes and backslashes count; nothing is expanded and no shell is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words(pub Vec<String>);

/// The text is no command.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WordsError {
    /// It begins with `[`.
    #[error("`{text}` is not a JSON array of strings")]
    Json {
        /// All of it.
        text: String,
        /// Why.
        source: serde_json::Error,
    },
    /// A quote is open at the end, or a backslash is the last character.
    #[error("`{text}` has a quote that is not closed")]
    Quote {
        /// All of it.
        text: String,
    },
}

impl FromStr for Words {
    type Err = WordsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.trim_start().starts_with('[') {
            return serde_json::from_str(text)
                .map(Self)
                .map_err(|source| WordsError::Json { text: text.to_owned(), source });
        }
        shlex::split(text).map(Self).ok_or_else(|| WordsError::Quote { text: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_json_or_words() {
        for (text, words) in [
            (r#"["a","b c"]"#, &["a", "b c"][..]),
            (r#" [ ] "#, &[]),
            ("/bin/sh", &["/bin/sh"]),
            (r#"nginx -g "daemon off;""#, &["nginx", "-g", "daemon off;"]),
            (r"a\ b 'c d' $HOME", &["a b", "c d", "$HOME"]),
        ] {
            assert_eq!(text.parse::<Words>().unwrap().0, words, "{text}");
        }
        assert!(matches!("[1]".parse::<Words>(), Err(WordsError::Json { .. })));
        assert!(matches!("'a".parse::<Words>(), Err(WordsError::Quote { .. })));
    }
}
