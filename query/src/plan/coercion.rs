//! DataFusion's coercion, for what has no types written out yet.
//!
//! Called by `plan/expression`. A kernel takes what it was made for, so that only the expressions within it are looked into, each by
//! itself: DataFusion looks through everything below a call, and names it, at each call of a long chain.

use arrow::datatypes::{DataType, Field};
use datafusion::{
    common::{
        Column, DFSchema, Result,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    logical_expr::Expr,
};

use super::kernel;

/// Begins the name of a column that stands for a kernel; no statement contains it.
const MARK: char = '\0';

/// The expression in the types that its parts take, where `coerce` is DataFusion's way to that.
///
/// # Errors
/// Those of `coerce`.
pub(super) fn coerced(expr: Expr, schema: &DFSchema, coerce: &dyn Fn(Expr, &DFSchema) -> Result<Expr>) -> Result<Expr> {
    if kernel::returns(&expr).is_some() {
        return Ok(expr.map_children(|operand| coerced(operand, schema, coerce).map(Transformed::yes))?.data);
    }
    let (mut kernels, mut fields) = (Vec::new(), Vec::new());
    let bare = expr.transform_down(|part| {
        let Some(returns) = kernel::returns(&part) else { return Ok(Transformed::no(part)) };
        let name = format!("{MARK}{}", kernels.len());
        fields.push(Field::new(&name, DataType::clone(returns), true));
        kernels.push(part);
        Ok(Transformed::new(Expr::Column(Column::from_name(name)), true, TreeNodeRecursion::Jump))
    })?;
    if kernels.is_empty() {
        return coerce(bare.data, schema);
    }
    let with_kernels = schema.join(&DFSchema::try_from(arrow::datatypes::Schema::new(fields))?)?;
    let back = coerce(bare.data, &with_kernels)?.transform_up(|part| {
        let number = match &part {
            Expr::Column(column) => column.name.strip_prefix(MARK).and_then(|number| number.parse::<usize>().ok()),
            _ => None,
        };
        match number.and_then(|number| kernels.get(number)) {
            Some(kernel) => coerced(kernel.clone(), schema, coerce).map(Transformed::yes),
            None => Ok(Transformed::no(part)),
        }
    })?;
    Ok(back.data)
}
