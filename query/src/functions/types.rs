//! The Arrow types of our SQL's types, as functions take and give them.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields};

pub(crate) use crate::catalog::types::{array_of as list_of, map_of, map_parts, struct_of, time_type as time, timestamp_type as timestamp};

/// Most digits of a DECIMAL.
pub(crate) const MAX_DIGITS: u8 = 38;

/// The field of an array's elements.
pub(crate) fn element_field(element: DataType) -> FieldRef {
    Arc::new(Field::new("item", element, true))
}

/// The field of a map's entries.
pub(crate) fn entries_field(key: DataType, value: DataType) -> FieldRef {
    match map_of(key, value) {
        DataType::Map(entries, _) => entries,
        // There is no other.
        other => element_field(other),
    }
}

/// The type of ours in which a value of any Arrow type is taken, or the type itself if there is none.
pub(crate) fn canonical(given: &DataType) -> DataType {
    match given {
        DataType::Int8 | DataType::Int16 | DataType::UInt8 | DataType::UInt16 => DataType::Int32,
        DataType::UInt32 | DataType::UInt64 => DataType::Int64,
        DataType::Float16 | DataType::Float32 => DataType::Float64,
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => DataType::Binary,
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => DataType::Decimal128(*precision, *scale),
        DataType::Date64 => DataType::Date32,
        DataType::Time32(_) | DataType::Time64(_) => time(),
        DataType::Timestamp(..) => timestamp(),
        DataType::Dictionary(_, value) => canonical(value),
        DataType::List(element) | DataType::LargeList(element) | DataType::FixedSizeList(element, _) => {
            list_of(canonical(element.data_type()))
        }
        DataType::Map(..) => match map_parts(given) {
            Some((key, value)) => map_of(canonical(key), canonical(value)),
            None => given.clone(),
        },
        DataType::Struct(fields) => struct_of(fields.iter().map(|field| (field.name().clone(), canonical(field.data_type())))),
        other => other.clone(),
    }
}

/// The narrowest type that holds all values of both, if there is one.
pub(crate) fn common(left: &DataType, right: &DataType) -> Option<DataType> {
    use DataType::{Decimal128, Float64, Int32, Int64, List, Map, Null, Struct};
    Some(match (left, right) {
        (left, right) if left == right => left.clone(),
        (Null, other) | (other, Null) => other.clone(),
        (Int32, Int64) | (Int64, Int32) => Int64,
        (Float64, Int32 | Int64 | Decimal128(..)) | (Int32 | Int64 | Decimal128(..), Float64) => Float64,
        (Int32, decimal @ Decimal128(..)) | (decimal @ Decimal128(..), Int32) => wider_decimal(&Decimal128(10, 0), decimal)?,
        (Int64, decimal @ Decimal128(..)) | (decimal @ Decimal128(..), Int64) => wider_decimal(&Decimal128(19, 0), decimal)?,
        (Decimal128(..), Decimal128(..)) => wider_decimal(left, right)?,
        (List(left), List(right)) => list_of(common(left.data_type(), right.data_type())?),
        (Map(..), Map(..)) => {
            let ((left_key, left_value), (right_key, right_value)) = (map_parts(left)?, map_parts(right)?);
            map_of(common(left_key, right_key)?, common(left_value, right_value)?)
        }
        (Struct(left), Struct(right)) => common_struct(left, right)?,
        _ => return None,
    })
}

/// The struct of the fields of both, each in the common type, in the order of the one that has them all, if one has.
fn common_struct(left: &Fields, right: &Fields) -> Option<DataType> {
    let has_all = |one: &Fields, other: &Fields| other.iter().all(|field| one.find(field.name()).is_some());
    let (first, second) = if has_all(right, left) { (right, left) } else { (left, right) };
    let mut fields = Vec::with_capacity(first.len());
    for field in first {
        let data_type = match second.find(field.name()) {
            Some((_, other)) => common(field.data_type(), other.data_type())?,
            None => field.data_type().clone(),
        };
        fields.push((field.name().clone(), data_type));
    }
    let behind = second.iter().filter(|field| first.find(field.name()).is_none());
    fields.extend(behind.map(|field| (field.name().clone(), field.data_type().clone())));
    Some(struct_of(fields))
}

/// The narrowest DECIMAL that holds both; none if that has more than 38 digits.
pub(crate) fn wider_decimal(left: &DataType, right: &DataType) -> Option<DataType> {
    let (DataType::Decimal128(left_digits, left_scale), DataType::Decimal128(right_digits, right_scale)) = (left, right) else {
        return None;
    };
    let scale = (*left_scale).max(*right_scale);
    let whole = (i16::from(*left_digits) - i16::from(*left_scale)).max(i16::from(*right_digits) - i16::from(*right_scale));
    let digits = u8::try_from(whole + i16::from(scale)).ok()?;
    (digits <= MAX_DIGITS).then_some(DataType::Decimal128(digits, scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_both_holds_every_field_of_both() {
        use DataType::{Decimal128, Float64, Int32, Int64, Utf8};
        let of = |fields: &[(&str, DataType)]| struct_of(fields.iter().map(|(name, of)| ((*name).to_owned(), of.clone())));
        let (left, right) = (of(&[("x", Int32), ("y", Int64)]), of(&[("y", Int32), ("z", Utf8)]));
        let both = of(&[("x", Int32), ("y", Int64), ("z", Utf8)]);
        assert_eq!(common(&left, &right), Some(both.clone()));
        // What is within the other keeps the other's order.
        assert_eq!(common(&right, &both), Some(both.clone()));
        assert_eq!(common(&both, &right), Some(both));
        assert_eq!(common(&left, &of(&[("y", Utf8)])), None);
        assert_eq!(common(&list_of(Int32), &list_of(Float64)), Some(list_of(Float64)));
        assert_eq!(common(&Int64, &Decimal128(5, 2)), Some(Decimal128(21, 2)));
        assert_eq!(common(&Decimal128(38, 0), &Decimal128(38, 38)), None);
    }
}
