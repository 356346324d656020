//! The types that can be declared, as users write them.

use arrow::datatypes::DataType;
use datafusion::sql::sqlparser::ast;

use crate::catalog;

/// The type of a declared column, or why there is none.
pub(super) fn column_type(written: &ast::DataType) -> Result<DataType, String> {
    use ast::DataType as Sql;
    let simple = match written {
        Sql::Boolean | Sql::Bool => DataType::Boolean,
        Sql::Int(None) | Sql::Integer(None) | Sql::Int4(None) => DataType::Int32,
        Sql::BigInt(None) | Sql::Int8(None) => DataType::Int64,
        Sql::Double(ast::ExactNumberInfo::None) | Sql::DoublePrecision | Sql::Float(ast::ExactNumberInfo::None) | Sql::Float8 => {
            DataType::Float64
        }
        Sql::Varchar(None) | Sql::String(None) | Sql::Text | Sql::CharacterVarying(None) => DataType::Utf8,
        Sql::Timestamp(None, ast::TimezoneInfo::None) => catalog::timestamp_type(),
        Sql::Decimal(info) | Sql::Numeric(info) | Sql::Dec(info) => return decimal_type(*info),
        other => {
            return Err(format!("there is no type {other}; known are BOOLEAN, INT, BIGINT, DOUBLE, DECIMAL(p, s), VARCHAR, TIMESTAMP"));
        }
    };
    Ok(simple)
}

fn decimal_type(info: ast::ExactNumberInfo) -> Result<DataType, String> {
    let (precision, scale) = match info {
        ast::ExactNumberInfo::None => return Err("DECIMAL needs a precision and a scale: DECIMAL(10, 2)".to_owned()),
        ast::ExactNumberInfo::Precision(precision) => (precision, 0),
        ast::ExactNumberInfo::PrecisionAndScale(precision, scale) => (precision, scale),
    };
    let fits = u8::try_from(precision).ok().filter(|precision| (1..=38).contains(precision));
    match (fits, i8::try_from(scale).ok()) {
        (Some(precision), Some(scale)) if scale >= 0 && scale.unsigned_abs() <= precision => Ok(DataType::Decimal128(precision, scale)),
        _ => Err(format!("DECIMAL({precision}, {scale}) is out of range: the precision is 1 to 38, the scale 0 to the precision")),
    }
}
