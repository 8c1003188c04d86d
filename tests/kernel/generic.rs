//! Generic netlink, as programs for Open vSwitch or simulated radios speak it.

use std::os::fd::{AsRawFd, OwnedFd};

use dockless::netlink::wire;
use dockless::sys::raw;
use nix::sys::socket::{MsgFlags, recv, send};

use crate::harness::{Stop, Verdict, failed, skipped};

/// A socket of NETLINK_GENERIC.
pub(crate) struct Generic(OwnedFd);

/// GENL_ID_CTRL, CTRL_CMD_GETFAMILY and its attributes (linux/genetlink.h).
const CONTROL: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;

impl Generic {
    pub(crate) fn open() -> Verdict<Self> {
        let generic = libc::NETLINK_GENERIC;
        Ok(Self(raw::socket(
            libc::AF_NETLINK,
            libc::SOCK_RAW,
            generic,
        )?))
    }

    /// Asks, and gives back the payload of the answer, or the errno. `header`
    /// is the family's own.
    pub(crate) fn ask(
        &self,
        family: u16,
        (command, version): (u8, u8),
        header: &[u8],
        attrs: &[(u16, &[u8])],
    ) -> Verdict<Result<Vec<u8>, i32>> {
        let mut request = Vec::new();
        let flags = u16::try_from(libc::NLM_F_REQUEST | libc::NLM_F_ACK)?;
        let at = wire::begin(&mut request, family, flags, 1);
        request.extend_from_slice(&[command, version, 0, 0]);
        request.extend_from_slice(header);
        for (kind, value) in attrs {
            request.extend_from_slice(&u16::try_from(4 + value.len())?.to_ne_bytes());
            request.extend_from_slice(&kind.to_ne_bytes());
            request.extend_from_slice(value);
            request.resize(wire::align(request.len()), 0);
        }
        wire::end(&mut request, at);
        send(self.0.as_raw_fd(), &request, MsgFlags::empty())?;
        let mut answer = Vec::new();
        loop {
            let mut buffer = [0; 8192];
            let len = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            for message in wire::messages(&buffer[..len]) {
                let message = message.map_err(|e| Stop::Failed(e.0.to_owned()))?;
                if message.kind != 2 {
                    answer = message.payload.to_vec();
                    continue;
                }
                // NLMSG_ERROR: zero is the ACK; what is above is an answer.
                let code = i32::from_ne_bytes(message.payload[..4].try_into()?);
                return Ok(if code >= 0 { Ok(answer) } else { Err(-code) });
            }
        }
    }

    /// A family's number; the kernel loads its module. Skips the test where
    /// there is none.
    pub(crate) fn family(&self, name: &str, missing: &str) -> Verdict<u16> {
        let name = format!("{name}\0");
        let attrs = [(FAMILY_NAME, name.as_bytes())];
        match self.ask(CONTROL, (GET_FAMILY, 1), &[], &attrs)? {
            Ok(answer) => Ok(wire::u16_of(wire::find(&answer[4..], FAMILY_ID).unwrap()).unwrap()),
            Err(libc::ENOENT) => skipped(missing),
            Err(errno) => failed(nix::errno::Errno::from_raw(errno)),
        }
    }
}
