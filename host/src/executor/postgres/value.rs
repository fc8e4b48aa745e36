//! Parameters and cells: the contract's values in the types that PostgreSQL infers.

use std::error::Error;

use bytes::{BufMut as _, BytesMut};
use tokio_postgres::types::{Format, FromSql, IsNull, ToSql, Type};

use crate::executor::Value;

type Refused = Box<dyn Error + Send + Sync>;

/// Whether a parameter has a form in the type that the statement gives its placeholder; else why not. Types without a case
/// of their own take text.
pub(super) fn check_parameter(value: &Value, ty: &Type) -> Result<(), String> {
    let fits = match value {
        Value::Null => true,
        Value::Integer(integer) => match *ty {
            Type::BOOL => matches!(integer, 0 | 1),
            Type::INT2 => i16::try_from(*integer).is_ok(),
            Type::INT4 => i32::try_from(*integer).is_ok(),
            Type::OID => u32::try_from(*integer).is_ok(),
            Type::INT8 | Type::NUMERIC | Type::FLOAT4 | Type::FLOAT8 => true,
            _ => return Err(format!("a whole number in the place of {ty}")),
        },
        Value::Real(_) => [Type::NUMERIC, Type::FLOAT4, Type::FLOAT8].contains(ty),
        Value::Text(text) if text.contains('\0') => return Err("PostgreSQL keeps no text with a NUL character".into()),
        Value::Text(_) => {
            ![Type::BOOL, Type::INT2, Type::INT4, Type::INT8, Type::OID, Type::FLOAT4, Type::FLOAT8, Type::BYTEA].contains(ty)
        }
        Value::Blob(_) => *ty == Type::BYTEA,
    };
    let what = match value {
        _ if fits => return Ok(()),
        Value::Integer(integer) => return Err(format!("{integer} is no value of {ty}")),
        Value::Real(_) => "a double",
        Value::Blob(_) => "bytes",
        Value::Text(_) | Value::Null => "text",
    };
    Err(format!("{what} in the place of {ty}"))
}

/// A parameter, sent as the type that the statement gives its placeholder. It was checked ([`check_parameter`]).
#[derive(Debug)]
pub(super) struct Parameter<'a>(pub(super) &'a Value);

impl ToSql for Parameter<'_> {
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "the column has the precision that it has")]
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Refused> {
        check_parameter(self.0, ty)?;
        match self.0 {
            Value::Null => return Ok(IsNull::Yes),
            Value::Integer(integer) => match *ty {
                Type::BOOL => out.put_u8(u8::from(*integer != 0)),
                Type::INT2 => out.put_i16(i16::try_from(*integer)?),
                Type::INT4 => out.put_i32(i32::try_from(*integer)?),
                Type::INT8 => out.put_i64(*integer),
                Type::OID => out.put_u32(u32::try_from(*integer)?),
                Type::FLOAT4 => out.put_f32(*integer as f32),
                Type::FLOAT8 => out.put_f64(*integer as f64),
                _ => out.put_slice(integer.to_string().as_bytes()),
            },
            Value::Real(real) => match *ty {
                Type::FLOAT4 => out.put_f32(*real as f32),
                Type::FLOAT8 => out.put_f64(*real),
                _ => out.put_slice(real.to_string().as_bytes()),
            },
            Value::Text(text) => out.put_slice(text.as_bytes()),
            Value::Blob(bytes) => out.put_slice(bytes),
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn to_sql_checked(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Refused> {
        self.to_sql(ty, out)
    }

    fn encode_format(&self, ty: &Type) -> Format {
        match self.0 {
            Value::Text(_) => Format::Text,
            Value::Integer(_) | Value::Real(_) if *ty == Type::NUMERIC => Format::Text,
            _ => Format::Binary,
        }
    }
}

/// Whether cells of a type are values of the contract.
pub(super) fn has_value(ty: &Type) -> bool {
    const TYPES: [Type; 16] = [
        Type::BOOL,
        Type::INT2,
        Type::INT4,
        Type::INT8,
        Type::OID,
        Type::FLOAT4,
        Type::FLOAT8,
        Type::BYTEA,
        Type::TEXT,
        Type::VARCHAR,
        Type::BPCHAR,
        Type::NAME,
        Type::UNKNOWN,
        Type::JSON,
        Type::JSONB,
        // Of functions called for what they do.
        Type::VOID,
    ];
    TYPES.contains(ty)
}

/// A cell of a result.
pub(super) struct Cell(pub(super) Value);

impl<'a> FromSql<'a> for Cell {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, Refused> {
        let text = |raw: &[u8]| Ok::<_, Refused>(Value::Text(String::from_utf8(raw.to_owned())?));
        Ok(Self(match *ty {
            Type::BOOL => Value::Integer(bool::from_sql(ty, raw)?.into()),
            Type::INT2 => Value::Integer(i16::from_sql(ty, raw)?.into()),
            Type::INT4 => Value::Integer(i32::from_sql(ty, raw)?.into()),
            Type::INT8 => Value::Integer(i64::from_sql(ty, raw)?),
            Type::OID => Value::Integer(u32::from_sql(ty, raw)?.into()),
            Type::FLOAT4 => Value::Real(f32::from_sql(ty, raw)?.into()),
            Type::FLOAT8 => Value::Real(f64::from_sql(ty, raw)?),
            Type::BYTEA => Value::Blob(raw.to_owned()),
            Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::UNKNOWN | Type::JSON => text(raw)?,
            // One byte says which version of the format follows.
            Type::JSONB => match raw {
                [1, json @ ..] => text(json)?,
                _ => return Err("an unknown form of jsonb".into()),
            },
            Type::VOID => Value::Null,
            _ => return Err(format!("a column of the type {ty} must be cast in the statement").into()),
        }))
    }

    fn from_sql_null(_: &Type) -> Result<Self, Refused> {
        Ok(Self(Value::Null))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(value: &Value, ty: &Type) -> Option<(bool, Vec<u8>)> {
        let mut out = BytesMut::new();
        let parameter = Parameter(value);
        let binary = matches!(parameter.encode_format(ty), Format::Binary);
        parameter.to_sql_checked(ty, &mut out).ok().map(|_| (binary, out.to_vec()))
    }

    #[test]
    fn parameters_take_the_type_of_their_place() {
        for (value, ty, expected) in [
            (Value::Integer(1), Type::BOOL, (true, vec![1])),
            (Value::Integer(-2), Type::INT2, (true, vec![255, 254])),
            (Value::Integer(5), Type::INT8, (true, 5i64.to_be_bytes().to_vec())),
            (Value::Integer(5), Type::NUMERIC, (false, b"5".to_vec())),
            (Value::Real(0.5), Type::FLOAT8, (true, 0.5f64.to_be_bytes().to_vec())),
            (Value::Real(0.5), Type::NUMERIC, (false, b"0.5".to_vec())),
            (Value::Text("2026-01-01".into()), Type::TIMESTAMPTZ, (false, b"2026-01-01".to_vec())),
            (Value::Text("{}".into()), Type::JSONB, (false, b"{}".to_vec())),
            (Value::Blob(vec![0, 1]), Type::BYTEA, (true, vec![0, 1])),
        ] {
            assert_eq!(sent(&value, &ty), Some(expected), "{value:?} as {ty}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for (value, ty) in [
            (Value::Integer(70_000), Type::INT2),
            (Value::Integer(1 << 40), Type::INT4),
            (Value::Integer(2), Type::BOOL),
            (Value::Integer(1), Type::BYTEA),
            (Value::Integer(1), Type::TEXT),
            (Value::Real(0.5), Type::TEXT),
            (Value::Real(0.5), Type::INT8),
            (Value::Text("1".into()), Type::INT8),
            (Value::Text("x".into()), Type::BYTEA),
            (Value::Text("a\0b".into()), Type::TEXT),
            (Value::Blob(vec![1]), Type::TEXT),
        ] {
            assert_eq!(sent(&value, &ty), None, "{value:?} as {ty}");
        }
    }

    #[test]
    fn cells_have_the_values_of_the_contract() {
        for (ty, raw, expected) in [
            (Type::BOOL, &[1][..], Value::Integer(1)),
            (Type::INT2, &[255, 254], Value::Integer(-2)),
            (Type::TEXT, b"text", Value::Text("text".into())),
            (Type::JSONB, b"\x01{}", Value::Text("{}".into())),
            (Type::BYTEA, &[0], Value::Blob(vec![0])),
        ] {
            assert_eq!(Cell::from_sql(&ty, raw).expect("a cell").0, expected);
        }
        assert!(!has_value(&Type::NUMERIC) && has_value(&Type::JSONB));
        assert!(Cell::from_sql(&Type::TEXT, &[0xff]).is_err());
    }
}
