//! What every service over plain HTTP needs: problem documents, bodies within bounds, media types and
//! origins, paths and queries. Knows no service.

pub(crate) mod body;
pub(crate) mod negotiation;
mod problem;
pub(crate) mod text;

pub(crate) use problem::Problem;
