//! Changes to files that look for what their readers did not expect.

use polaron_common::splitmix64;

/// Draws that the number of a case decides.
pub struct Draws {
    key: u64,
    drawn: u64,
}

impl Draws {
    pub fn new(case: u64) -> Self {
        Self { key: splitmix64(case), drawn: 0 }
    }

    /// A number below `count`; 0 if there is none.
    pub fn below(&mut self, count: usize) -> usize {
        self.drawn += 1;
        let x = splitmix64(self.key.wrapping_add(self.drawn));
        ((u128::from(x) * count as u128) >> 64) as usize
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// Start and end of a part of something that has `length` parts.
    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.below(length + 1);
        let longest = if self.below(2) == 0 { 8 } else { length };
        start..(start + self.below(longest + 1)).min(length)
    }
}

/// Numbers at the limits of what is usual, as text.
const NUMBERS: &[&str] = &[
    "0",
    "-1",
    "1",
    "1e308",
    "-1e308",
    "1e-320",
    "nan",
    "inf",
    "-inf",
    "NaN",
    "-0.0",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "4294967296",
    "2147483648",
    "65536",
    "1e999",
    "0.1",
    "3.5",
    "true",
    "null",
    "\"\"",
    "[]",
    "{}",
    "1979-05-27",
    "0x7fffffffffffffff",
];
const BYTES: &[u8] = b"\0\xff\x80\x7f\"'[]{}(),.:=#\n\r\t\\/*+^$|-0e";

/// `seed` with one to four changes; words of `other` may come in.
pub fn changed(seed: &[u8], other: &[u8], draws: &mut Draws) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=draws.below(4) {
        change(&mut bytes, other, draws);
    }
    bytes
}

fn change(bytes: &mut Vec<u8>, other: &[u8], draws: &mut Draws) {
    let at = draws.below(bytes.len() + 1);
    match draws.below(12) {
        0 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << draws.below(8)),
        1 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = *draws.one(BYTES)),
        2 => bytes.insert(at, *draws.one(BYTES)),
        3 => bytes.truncate(at),
        4 => drop(bytes.drain(draws.range(bytes.len()))),
        5 => {
            let copy = bytes[draws.range(bytes.len())].to_vec();
            bytes.splice(at..at, copy);
        }
        6 => {
            let strange = other[draws.range(other.len())].to_vec();
            bytes.splice(at..at, strange);
        }
        7 => declare(bytes, draws),
        8 => nest(bytes, at, draws),
        9 | 10 => {
            if let Some(range) = token(bytes, at, |byte| byte.is_ascii_digit() || b".-+".contains(byte)) {
                bytes.splice(range, draws.one(NUMBERS).bytes());
            }
        }
        _ => {
            let word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
            let from = draws.below(other.len() + 1);
            if let (Some(range), Some(strange)) = (token(bytes, at, word), token(other, from, word)) {
                bytes.splice(range, other[strange].iter().copied());
            }
        }
    }
}

/// A whole number in binary, as in a header.
fn declare(bytes: &mut [u8], draws: &mut Draws) {
    let number: u64 = *draws.one(&[0, 1, 2, 255, 65_535, 1 << 31, u32::MAX as u64, 1 << 40, i64::MAX as u64, u64::MAX]);
    let written = match draws.below(4) {
        0 => (number as u32).to_le_bytes().to_vec(),
        1 => (number as u32).to_be_bytes().to_vec(),
        2 => number.to_le_bytes().to_vec(),
        _ => number.to_be_bytes().to_vec(),
    };
    // Headers stand in front, their numbers mostly at multiples of four.
    let at = 4 * draws.below(bytes.len().min(128) / 4 + 1);
    bytes.iter_mut().skip(at).zip(written).for_each(|(to, from)| *to = from);
}

/// Brackets within brackets, open or closed again.
fn nest(bytes: &mut Vec<u8>, at: usize, draws: &mut Draws) {
    let depth = *draws.one(&[3, 200, 20_000]);
    let (open, close): &(&str, &str) =
        draws.one(&[("[", "]"), ("{\"a\":", "}"), ("{a=", "}"), ("(", ")"), ("(a{9}", "){9}"), ("a.", ""), ("**", "")]);
    let mut nested = open.repeat(depth);
    if draws.below(2) == 0 {
        nested.push('1');
        nested.push_str(&close.repeat(depth));
    }
    bytes.splice(at..at, nested.into_bytes());
}

/// The first run of bytes that are `part` of a token, from `at` on.
fn token(bytes: &[u8], at: usize, part: impl Fn(&u8) -> bool) -> Option<std::ops::Range<usize>> {
    let start = at + bytes.get(at..)?.iter().position(&part)?;
    let length = bytes[start..].iter().take_while(|byte| part(byte)).count();
    Some(start..start + length)
}
