//! Texts in files: which files, what kind of file, and their documents as a stream.

mod compression;
mod decompress;
mod encoding;
mod folder;
mod foreign;
mod formats;
mod opened;
mod plain;
mod records;
mod sources;
mod table;

pub use encoding::decode_utf8;
pub(crate) use encoding::without_mark;
pub(crate) use opened::Event;
pub(crate) use records::TEXT_KEY;
pub(crate) use sources::Sources;
