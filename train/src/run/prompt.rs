//! Prompts, which generated text continues: they are checked before any work, and chosen when a command is suggested.

use polaron_common::thousands;
use polaron_datasets::Tokenizer;

use crate::error::{ConfigError, Error};
use crate::host::progress::say;
use crate::settings::config::Config;

/// Prompts to suggest: the first one that the tokenizer can encode.
const SUGGESTED: [&str; 4] = ["KING", "The", "the", "a"];

/// How many characters a message names; the others are only counted.
const NAMED: usize = 8;

/// Checks a prompt against the tokenizer that will encode it. `key` is the flag or key that set it. A prompt of more than
/// `context` tokens is allowed, but the model does not see its beginning: a warning says so.
///
/// # Errors
///
/// [`ConfigError::BadValue`] with the characters that the tokenizer does not know, or for a prompt that has no tokens.
pub fn check(key: &str, prompt: &str, tokenizer: &Tokenizer, context: usize) -> Result<(), Error> {
    let bad = |rule: String| ConfigError::BadValue { key: key.into(), value: format!("{prompt:?}"), rule };
    let tokens = match tokenizer.encode(prompt) {
        Ok(tokens) => tokens,
        Err(error) => return Err(unknown(prompt, tokenizer).map_or_else(|| error.into(), |rule| bad(rule).into())),
    };
    if tokens.is_empty() && !prompt.is_empty() {
        let rule = "this tokenizer encodes it as no tokens at all: use another prompt, or an empty one".into();
        return Err(bad(rule).into());
    }
    if tokens.len() > context {
        let (tokens, context) = (thousands(tokens.len() as u64), thousands(context as u64));
        say(&format!("warning: `{key}` has {tokens} tokens, of which the model sees the last {context}"));
    }
    Ok(())
}

/// Checks, before a run begins, the prompt of the sample that it writes at its end. `tokenizer` is the tokenizer of its
/// text, if its model reads text.
///
/// # Errors
///
/// Those of [`check`]; a prompt for a model that does not write text.
pub fn check_sample(config: &Config, tokenizer: Option<&Tokenizer>) -> Result<(), Error> {
    const KEY: &str = "train.sample_prompt";
    let prompt = &config.train.sample_prompt;
    match tokenizer {
        Some(tokenizer) if config.train.sample_tokens > 0 => {
            check(KEY, prompt, tokenizer, config.model.tokens_per_row())
        }
        None if !prompt.is_empty() => {
            let noun = config.model.noun();
            let rule = format!("a {noun} does not write text: leave the key out, or choose a decoder as the model");
            Err(ConfigError::BadValue { key: KEY.into(), value: format!("{prompt:?}"), rule }.into())
        }
        _ => Ok(()),
    }
}

/// The message about the characters of a prompt that the tokenizer does not know; None if it knows them all.
fn unknown(prompt: &str, tokenizer: &Tokenizer) -> Option<String> {
    let known = |character: char| tokenizer.encode(character.encode_utf8(&mut [0; 4])).is_ok();
    let mut unknown: Vec<char> = Vec::new();
    for character in prompt.chars() {
        if !unknown.contains(&character) && !known(character) {
            unknown.push(character);
        }
    }
    let offset = prompt.chars().position(|character| Some(&character) == unknown.first())?;
    let named = unknown.iter().take(NAMED).map(|character| format!("{character:?}")).collect::<Vec<_>>().join(", ");
    let more = unknown.len().saturating_sub(NAMED);
    let named = if more > 0 { format!("{named} and {more} more") } else { named };
    let (noun, verb, them) = if unknown.len() == 1 { ("character", "is", "it") } else { ("characters", "are", "them") };
    Some(format!(
        "its {noun} {named} (the first at character offset {offset}, counted from 0) {verb} not among the {} characters of \
         this text's alphabet: leave {them} out, or train with `--set data.tokenizer=byte`, which can encode every text",
        tokenizer.vocab_size()
    ))
}

/// A prompt that the tokenizer can encode, for a suggested command: the configured one, a common word, a letter of its
/// alphabet, or an empty one.
pub fn suggested(configured: &str, tokenizer: &Tokenizer) -> String {
    let known = |prompt: &str| {
        let decoded = tokenizer.encode(prompt).and_then(|tokens| tokenizer.decode(&tokens));
        !prompt.is_empty() && decoded.is_ok_and(|decoded| decoded == prompt)
    };
    if let Some(prompt) = [configured].into_iter().chain(SUGGESTED).find(|prompt| known(prompt)) {
        return prompt.into();
    }
    let tokens = (0..tokenizer.vocab_size()).filter_map(|token| tokenizer.decode(&[u32::try_from(token).ok()?]).ok());
    let mut printable = tokens.filter(|text| known(text) && !text.chars().any(|c| c.is_control() || c.is_whitespace()));
    printable.next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_characters_are_named_once_each() {
        let tokenizer = Tokenizer::char_from("abc ");
        let said = check("--prompt", "a\u{e9}b\u{2603}\u{e9}", &tokenizer, 8).unwrap_err().to_string();
        for fragment in ["`--prompt`", "'\u{e9}', '\u{2603}'", "offset 1", "4 characters", "data.tokenizer=byte"] {
            assert!(said.contains(fragment), "{fragment}: {said}");
        }
        check("--prompt", "", &tokenizer, 8).unwrap();
        check("--prompt", "abc", &tokenizer, 2).unwrap();
        check("--prompt", "\u{e9}", &Tokenizer::byte(), 8).unwrap();
    }

    #[test]
    fn a_suggested_prompt_is_one_that_the_alphabet_has() {
        for (alphabet, configured, expected) in [
            ("THE KING", "", "KING"),
            ("the king", "", "the"),
            ("the king", "king", "king"),
            ("the king", "KING", "the"),
            ("0123\n", "", "0"),
            ("\u{4e2d}\u{6587}\n", "", "\u{4e2d}"),
            ("\n\t ", "", ""),
        ] {
            assert_eq!(suggested(configured, &Tokenizer::char_from(alphabet)), expected, "{alphabet:?}");
        }
        assert_eq!(suggested("\u{e9}t\u{e9}", &Tokenizer::byte()), "\u{e9}t\u{e9}");
    }
}
