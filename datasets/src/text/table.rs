//! Parquet tables: every row of a column of text is a document.

use std::fs::File;
use std::io::{BufRead, Cursor, Read};
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use parquet::basic::{Compression as Codec, ConvertedType, LogicalType, Type};
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::{ColumnChunkMetaData, RowGroupMetaData};
use parquet::file::reader::FileReader;
use parquet::file::serialized_reader::{SerializedFileReader, SerializedPageReader};
use parquet::schema::types::{ColumnDescriptor, SchemaDescriptor};

use super::compression::Compression;
use super::decompress::decompressed;
use super::foreign;
use super::opened::{Event, Flow, Opened, Sink};
use crate::errors::{DataError, PackError, Problem};

/// The compressions of pages that are read.
const CODECS: &str = "snappy, zstd or gzip, or without compression";
/// How a row must be, for messages.
const RULE: &str = "every row must have a text; `polaron data pack --skip-bad` leaves such rows out";
/// Rows that are read at a time.
const ROWS: usize = 64;
/// Larger than any page that a program writes.
const LARGEST_PAGE: u64 = 1 << 28;

/// Reads the rows of a table; empty documents are ignored. The footer is at the end of the file, so `reader` is not used.
pub(super) fn read(file: &Opened<'_>, _reader: &mut dyn BufRead, sink: Sink<'_>) -> Flow {
    if file.compression != Compression::None {
        return Err(foreign::compressed_table(file.path, file.compression));
    }
    let content = File::open(file.path).map_err(file.failed())?;
    let table = careful(|| SerializedFileReader::new(content)).map_err(|error| bad_table(file, error))?;
    let metadata = table.metadata();
    let column = find_column(file, metadata.file_metadata().schema_descr())?;
    let content = Arc::new(File::open(file.path).map_err(file.failed())?);
    let (mut row, rows) = (0, metadata.file_metadata().num_rows().max(1));
    for group in metadata.row_groups() {
        let mut values = careful(|| column_of(&content, group, column)).map_err(|error| bad_table(file, error))?;
        loop {
            let (mut levels, mut texts) = (Vec::new(), Vec::new());
            let read = careful(|| values.read_records(ROWS, Some(&mut levels), None, &mut texts));
            let (count, _, _) = read.map_err(|error| bad_table(file, error))?;
            if count == 0 {
                break;
            }
            if documents(file, row, &levels, &texts, sink)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            row += count;
            (file.progress)((row as f64 / rows as f64).min(1.0));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// The rows after the first `row` ones. A level of 0 is a row without a value; a column that must have values has no levels.
fn documents(file: &Opened<'_>, row: usize, levels: &[i16], texts: &[ByteArray], sink: Sink<'_>) -> Flow {
    let mut texts = texts.iter();
    let count = if levels.is_empty() { texts.len() } else { levels.len() };
    for at in 0..count {
        let text = if levels.get(at) == Some(&0) { None } else { texts.next() };
        let text = text.ok_or_else(|| Problem::from(format!("its `{}` is null", file.key)));
        match text.and_then(|text| Ok(std::str::from_utf8(text.data())?)) {
            Ok("") => {}
            Ok(text) => {
                if sink(file.path, Event::Text(text))?.is_break() || sink(file.path, Event::End)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            Err(problem) => {
                let (path, line) = (file.path.into(), row + at + 1);
                let error = |problem| PackError::BadRecord { path, unit: "row", line, problem, rule: RULE }.into();
                file.bad(line, problem, error)?;
            }
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// The number of the column of text.
fn find_column(file: &Opened<'_>, schema: &SchemaDescriptor) -> Result<usize, DataError> {
    let is_asked = |column: &ColumnDescriptor| {
        let is_text = matches!(column.logical_type_ref(), Some(LogicalType::String))
            || column.converted_type() == ConvertedType::UTF8;
        column.path().parts() == [file.key] && column.physical_type() == Type::BYTE_ARRAY && is_text
    };
    schema.columns().iter().position(|column| is_asked(column)).ok_or_else(|| {
        let name = |column: &ColumnDescriptor| {
            let kind = match column.logical_type_ref() {
                Some(LogicalType::String) => "text".into(),
                _ => column.physical_type().to_string().to_lowercase(),
            };
            format!("`{}` ({kind})", column.path().string())
        };
        let columns: Vec<String> = schema.columns().iter().map(|column| name(column)).collect();
        let columns = columns.join(", ");
        PackError::NoColumn { path: file.path.into(), key: file.key.into(), columns }.into()
    })
}

/// The values of a column in a group of rows.
fn column_of(
    content: &Arc<File>,
    group: &RowGroupMetaData,
    column: usize,
) -> ParquetResult<ColumnReaderImpl<ByteArrayType>> {
    let missing = || ParquetError::General(format!("a group of rows has no column {column}"));
    let chunk = group.columns().get(column).ok_or_else(missing)?.clone();
    let rows = usize::try_from(group.num_rows())?;
    let descriptor = chunk.column_descr_ptr();
    let pages: Box<dyn PageReader> = match compression_of(&chunk) {
        Compression::None => Box::new(SerializedPageReader::new(content.clone(), &chunk, rows, None)?),
        compression => {
            // To the library, these pages are not compressed; `Unpacked` decompresses them.
            let chunk = chunk.into_builder().set_compression(Codec::UNCOMPRESSED).build()?;
            let pages = SerializedPageReader::new(content.clone(), &chunk, rows, None)?;
            Box::new(Unpacked { pages, compression })
        }
    };
    Ok(ColumnReaderImpl::new(descriptor, pages))
}

/// How pages are compressed, if they are decompressed here.
fn compression_of(chunk: &ColumnChunkMetaData) -> Compression {
    match chunk.compression() {
        Codec::ZSTD(_) => Compression::Zstd,
        Codec::GZIP(_) => Compression::Gzip,
        _ => Compression::None,
    }
}

/// Pages that are decompressed without a C library.
struct Unpacked {
    pages: SerializedPageReader<File>,
    compression: Compression,
}

impl Unpacked {
    /// The content of a page, whose first `plain` bytes are not compressed.
    fn unpack(&self, packed: &[u8], plain: usize) -> ParquetResult<Vec<u8>> {
        let cut = || ParquetError::EOF("a page ends too early".into());
        let (levels, values) = packed.split_at_checked(plain).ok_or_else(cut)?;
        let mut content = levels.to_vec();
        if !values.is_empty() {
            let mut reader = decompressed(Cursor::new(values.to_vec()), self.compression).take(LARGEST_PAGE);
            reader.read_to_end(&mut content).map_err(|error| ParquetError::External(error.into()))?;
        }
        Ok(content)
    }
}

impl Iterator for Unpacked {
    type Item = ParquetResult<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for Unpacked {
    fn get_next_page(&mut self) -> ParquetResult<Option<Page>> {
        let Some(mut page) = self.pages.get_next_page()? else { return Ok(None) };
        match &mut page {
            Page::DataPage { buf, .. } | Page::DictionaryPage { buf, .. } => *buf = self.unpack(buf, 0)?.into(),
            Page::DataPageV2 { buf, def_levels_byte_len, rep_levels_byte_len, is_compressed, .. } => {
                if *is_compressed {
                    let plain = (*def_levels_byte_len as usize).saturating_add(*rep_levels_byte_len as usize);
                    *buf = self.unpack(buf, plain)?.into();
                }
            }
        }
        Ok(Some(page))
    }

    fn peek_next_page(&mut self) -> ParquetResult<Option<PageMetadata>> {
        self.pages.peek_next_page()
    }

    fn skip_next_page(&mut self) -> ParquetResult<()> {
        self.pages.skip_next_page()
    }
}

/// Some damaged pages make the library panic, where it should return an error.
fn careful<T>(work: impl FnOnce() -> ParquetResult<T>) -> ParquetResult<T> {
    let damaged = |_| Err(ParquetError::General("a page is damaged".into()));
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(damaged)
}

fn bad_table(file: &Opened<'_>, error: ParquetError) -> DataError {
    PackError::BadTable { path: file.path.into(), problem: error.into(), codecs: CODECS }.into()
}
