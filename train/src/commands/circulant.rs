//! `polaron inspect --circulant`: do the embeddings of words, such as those of the days, stand on a circle in their order?

use std::path::Path;

use burn::tensor::TensorData;
use polaron_common::{Align, table, thousands};
use polaron_datasets::Tokenizer;
use polaron_models::NamedTensor;
use polaron_verify::inspect::{Circle, gram};

use crate::error::Error;
use crate::store::weights::{Purpose, Weights};

const FLAG: &str = "--circulant";

/// The table of a trained model, for words in the order of a circle, separated by commas.
///
/// # Errors
///
/// No such weights, words that are not one token each, fewer than four of them, one twice, a model without an embedding.
pub fn of(path: &Path, words: &str) -> Result<String, Error> {
    let weights = Weights::read(path, None, Purpose::Evaluation)?;
    let shown = path.display();
    let Some(tokenizer) = &weights.tokenizer else {
        return Err(Error::Usage(format!(
            "`{shown}` has no tokenizer, so {FLAG} does not know which rows its words have"
        )));
    };
    let tokens = tokens(tokenizer, words)?;
    let mut rows = vec![["rows of", "as they are", "minus their mean", "smaller"].map(String::from)];
    for (label, name, by_column) in [("embedding", "embed.weight", false), ("head", "head.weight", true)] {
        if let Some(tensor) = weights.tensors.iter().find(|tensor| tensor.name == name) {
            let found = rows_of(tensor, &tokens, by_column)?;
            rows.push(row(label, &found));
        }
    }
    if rows.len() == 1 {
        return Err(Error::Usage(format!("the model of `{shown}` has no embedding: {FLAG} is for models of text")));
    }
    if rows.len() == 2 {
        rows.push(["head", "that of the embedding", "", ""].map(String::from));
    }
    let align = [Align::Left, Align::Right, Align::Right, Align::Right];
    Ok(format!(
        "{} words, tokens {tokens:?}, step {} of `{shown}`\n\n{}\n{NOTE}\n{}\n",
        tokens.len(),
        thousands(weights.step),
        table(rows, &align),
        alike(tokens.len())
    ))
}

const NOTE: &str = "Distance of the Gram matrix of the rows, in the order of the words, from a circulant one, as a share of it: 0 where \
    the words stand on a circle. What all rows share is circulant in every order, so the mean is also subtracted.\nsmaller: share \
    of 1000 random orders with a smaller distance, with the mean or without: near 0 if this order is that of a circle, about a half if it \
    means nothing.";

/// Which other orders have the same distance as the given one.
fn alike(words: usize) -> String {
    let divides = |k: usize| (2..=k).any(|d| k.is_multiple_of(d) && words.is_multiple_of(d));
    let steps: Vec<String> = (2..=words / 2).filter(|k| !divides(*k)).map(|k| k.to_string()).collect();
    match steps.as_slice() {
        [] => format!(
            "Of {words} words, no other order than this one, begun elsewhere or reversed, is sure to have the same distance."
        ),
        steps => format!(
            "Orders that take every k-th word of this one have the same distance, k = {}: they are not told apart.",
            steps.join(", ")
        ),
    }
}

/// The tokens of the words.
fn tokens(tokenizer: &Tokenizer, words: &str) -> Result<Vec<u32>, Error> {
    let token = |word: &str| -> Result<u32, Error> {
        if !tokenizer.has_text() {
            let number = word.trim().parse().ok().filter(|token| (*token as usize) < tokenizer.vocab_size());
            return number.ok_or_else(|| {
                let most = tokenizer.vocab_size() - 1;
                Error::Usage(format!(
                    "{FLAG}: this vocabulary has no text, so `{word}` must be a token from 0 to {most}"
                ))
            });
        }
        match tokenizer.encode(word)?.as_slice() {
            [token] => Ok(*token),
            many => Err(Error::Usage(format!(
                "{FLAG}: `{word}` is {} tokens of this vocabulary, but must be one; a space before a word counts",
                many.len()
            ))),
        }
    };
    let tokens = words.split(',').map(token).collect::<Result<Vec<u32>, Error>>()?;
    if tokens.len() < 4 {
        return Err(Error::Usage(format!(
            "{FLAG} needs at least four words: any three stand on a circle in every order"
        )));
    }
    if let Some(twice) = (1..tokens.len()).find(|at| tokens[..*at].contains(&tokens[*at])) {
        let word = words.split(',').nth(twice).unwrap_or_default();
        return Err(Error::Usage(format!("{FLAG} names `{word}` twice")));
    }
    Ok(tokens)
}

/// The rows of a table `[tokens, features]`, or with `by_column` the columns of one `[features, tokens]`.
fn rows_of(NamedTensor { name, data }: &NamedTensor, tokens: &[u32], by_column: bool) -> Result<Vec<Vec<f64>>, Error> {
    let missing = |token: &u32| Error::Usage(format!("{FLAG}: `{name}` has no row for token {token}"));
    let values: Vec<f64> = data.iter::<f64>().collect();
    tokens.iter().map(|token| row_of(data, &values, *token as usize, by_column).ok_or_else(|| missing(token))).collect()
}

fn row_of(data: &TensorData, values: &[f64], token: usize, by_column: bool) -> Option<Vec<f64>> {
    let &[height, width] = data.shape().as_slice() else { return None };
    if by_column {
        return (token < width).then(|| values.iter().skip(token).step_by(width).copied().collect());
    }
    (token < height).then(|| values[token * width..(token + 1) * width].to_vec())
}

fn row(label: &str, rows: &[Vec<f64>]) -> [String; 4] {
    let [raw, centred] = [false, true].map(|centred| Circle::of(&gram(rows, centred), rows.len()));
    let defect = |circle: &Circle| circle.defect.map_or_else(|| "zero".into(), |defect| format!("{defect:.4}"));
    // The same for both: the mean adds the same to every order.
    let smaller = centred.defect.map_or_else(String::new, |_| format!("{:.3}", centred.smaller));
    [label.into(), defect(&raw), defect(&centred), smaller]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_in_steps_that_share_no_divisor_with_the_number_of_words_are_named() {
        assert!(alike(7).contains("k = 2, 3:"), "{}", alike(7));
        assert!(alike(12).contains("k = 5:"), "{}", alike(12));
        assert!(alike(4).contains("no other order") && alike(6).contains("no other order"));
    }
}
