//! The client of a relay against servers that are honest, wrong or hostile.

mod allocation;
mod codec;
mod coturn;
mod coturn_process;
mod fake;
mod hostile;
mod loopback;
