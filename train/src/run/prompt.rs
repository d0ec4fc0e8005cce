//! Prompts, which generated text continues: they are read and checked before any work, and chosen when a command is suggested.

use std::path::Path;

use polaron_common::thousands;
use polaron_datasets::{DataError, Tokenizer, decode_utf8};
use serde_json::Value;

use crate::error::{ConfigError, Error, FileError};
use crate::host::progress::say;
use crate::settings::config::Config;

/// Prompts to suggest: the first one that the tokenizer can encode.
const SUGGESTED: [&str; 4] = ["KING", "The", "the", "a"];

/// How many characters a message names; the others are only counted.
const NAMED: usize = 8;

/// A prompt, and where it was given, for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// A flag, or the line of a file.
    pub place: String,
    /// The text to continue.
    pub text: String,
}

/// Reads a file of prompts: one a line, except in blank lines; or, with the ending `.jsonl` or `.ndjson`, the text `prompt` of
/// every line of JSON, of which nothing else is read.
///
/// # Errors
///
/// A file that cannot be read or has no prompt; a line of JSON without one.
pub fn read(path: &Path) -> Result<Vec<Prompt>, Error> {
    let bytes = std::fs::read(path).map_err(FileError::at("read the prompts", path))?;
    let (text, _) = decode_utf8(path, bytes)?;
    let ending = path.extension().and_then(|ending| ending.to_str()).map(str::to_lowercase);
    let json = ending.is_some_and(|ending| ["jsonl", "ndjson"].contains(&ending.as_str()));
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let prompt = |(index, line): (usize, &str)| {
        let place = format!("line {} of {}", index + 1, path.display());
        let text = if json { in_json(line) } else { Some(line.to_owned()) };
        let text = text.ok_or_else(|| {
            Error::Usage(format!("{place} is not a line of JSON with a text `prompt`: write {{\"prompt\": \"The\"}}"))
        });
        Ok(Prompt { text: text?, place })
    };
    let prompts: Vec<Prompt> = lines.map(prompt).collect::<Result<_, Error>>()?;
    if prompts.is_empty() {
        return Err(Error::Usage(format!("`{}` has no prompts: write one a line", path.display())));
    }
    Ok(prompts)
}

fn in_json(line: &str) -> Option<String> {
    let value: Value = serde_json::from_str(line).ok()?;
    Some(value.get("prompt")?.as_str()?.to_owned())
}

/// Checks a prompt against the tokenizer that will encode it. `key` is the flag or key that set it. A prompt of more than
/// `context` tokens is allowed, but the model does not see its beginning: a warning says so.
///
/// # Errors
///
/// [`ConfigError::BadValue`] with the characters that the tokenizer does not know, or for a prompt that has no tokens;
/// [`DataError::NoText`].
pub fn check(key: &str, prompt: &str, tokenizer: &Tokenizer, context: usize) -> Result<(), Error> {
    if !tokenizer.has_text() {
        return Err(DataError::NoText.into());
    }
    let bad = |rule: String| ConfigError::BadValue { key: key.into(), value: format!("{prompt:?}"), rule };
    let tokens = match tokenizer.encode(prompt) {
        Ok(tokens) => tokens,
        Err(error) => return Err(unknown(prompt, tokenizer).map_or_else(|| error.into(), |rule| bad(rule).into())),
    };
    if let Err(error) = tokenizer.check_known(prompt) {
        return Err(bad(error.to_string()).into());
    }
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
        // A run on tokens without text writes no sample.
        Some(tokenizer) if !tokenizer.has_text() && prompt.is_empty() => Ok(()),
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

    fn read_from(name: &str, text: &str) -> Result<Vec<(String, String)>, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        let place = |prompt: &Prompt| prompt.place.replace(&file.display().to_string(), "F");
        let prompts = read(&file).map_err(|error| error.to_string())?;
        Ok(prompts.iter().map(|prompt| (place(prompt), prompt.text.clone())).collect())
    }

    #[test]
    fn a_file_has_a_prompt_in_every_line_that_is_not_blank() {
        let pair = |line: usize, text: &str| (format!("line {line} of F"), text.to_owned());
        assert_eq!(read_from("p.txt", "One \r\n\n two").unwrap(), [pair(1, "One "), pair(3, " two")]);
        let lines = "{\"prompt\": \"a\\nb\", \"id\": 3}\n{\"prompt\": \"\"}\n";
        assert_eq!(read_from("p.JSONL", lines).unwrap(), [pair(1, "a\nb"), pair(2, "")]);
        for (name, text, part) in [
            ("p.txt", " \n\n", "has no prompts"),
            ("p.jsonl", "{\"prompt\": \"a\"}\nplain\n", "line 2 of"),
            ("p.ndjson", "{\"text\": \"a\"}", "a text `prompt`"),
            ("p.jsonl", "{\"prompt\": 3}", "line 1 of"),
        ] {
            let said = read_from(name, text).unwrap_err();
            assert!(said.contains(part), "{said}");
        }
    }

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
