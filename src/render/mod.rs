//! Templates and the files rendered from them, for a dialect.
