//! What a text goes on from: checked before any work, and chosen where a command is suggested.

use polaron_common::thousands;
use polaron_datasets::Tokenizer;

use crate::config::{Config, ConfigError};
use crate::error::Error;
use crate::network::NetworkConfig;
use crate::progress::say;

/// Prompts to suggest, in this order, where the tokenizer knows them.
const SUGGESTED: [&str; 4] = ["KING", "The", "the", "a"];

/// Characters that a message names; the others are counted.
const NAMED: usize = 8;

/// Checks a prompt against the tokenizer that will read it. `key` is the flag or key that brought it. A prompt of more than
/// `context` tokens is good, but its beginning will not be seen: a warning says so.
///
/// # Errors
///
/// [`ConfigError::BadValue`] with the characters that the tokenizer does not know, or for a prompt without a token.
pub fn check(key: &str, prompt: &str, tokenizer: &Tokenizer, context: usize) -> Result<(), Error> {
    let bad = |rule: String| ConfigError::BadValue { key: key.into(), value: format!("{prompt:?}"), rule };
    let tokens = match tokenizer.encode(prompt) {
        Ok(tokens) => tokens,
        Err(error) => return Err(unknown(prompt, tokenizer).map_or_else(|| error.into(), |rule| bad(rule).into())),
    };
    if tokens.is_empty() && !prompt.is_empty() {
        let rule = "this tokenizer makes no token of it: write another prompt, or an empty one".into();
        return Err(bad(rule).into());
    }
    if tokens.len() > context {
        let (tokens, context) = (thousands(tokens.len() as u64), thousands(context as u64));
        say(&format!("warning: `{key}` has {tokens} tokens, of which the model sees the last {context}"));
    }
    Ok(())
}

/// Checks the prompt of the sample that a run writes at its end, before it begins. `tokenizer` is that of its text; a
/// perceptron has none.
///
/// # Errors
///
/// Those of [`check`]; a prompt for a model that writes no text.
pub fn check_sample(config: &Config, tokenizer: Option<&Tokenizer>) -> Result<(), Error> {
    const KEY: &str = "train.sample_prompt";
    let prompt = &config.train.sample_prompt;
    match (&config.model, tokenizer) {
        (NetworkConfig::Decoder(_), Some(tokenizer)) if config.train.sample_tokens > 0 => {
            check(KEY, prompt, tokenizer, config.model.tokens_per_row())
        }
        (NetworkConfig::Mlp(_), _) if !prompt.is_empty() => {
            let rule = "a perceptron writes no text: leave the key out, or choose a decoder as the model".into();
            Err(ConfigError::BadValue { key: KEY.into(), value: format!("{prompt:?}"), rule }.into())
        }
        _ => Ok(()),
    }
}

/// Which characters of a prompt the tokenizer does not know, as a rule that it breaks; None when it knows each of them.
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
         this text's alphabet: leave {them} out, or train with `--set data.tokenizer=byte`, which knows every text",
        tokenizer.vocab_size()
    ))
}

/// A prompt that the tokenizer knows, for a command to suggest: the configured one, a usual word, a letter of its alphabet,
/// or nothing.
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
