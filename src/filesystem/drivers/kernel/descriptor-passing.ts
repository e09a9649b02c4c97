import { read as peek, ptr } from 'bun:ffi';
import { ImgcredError } from '../../../errors/index.ts';
import { checked, libc, nativeBuffer } from './libc.ts';

const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const MSG_DONTWAIT = 0x40;
const MSG_CMSG_CLOEXEC = 0x4000_0000;

// struct msghdr on 64-bit Linux: name 0, namelen 8, iov 16, iovlen 24, control 32, controllen 40, flags 48.
const MSGHDR_SIZE = 56;
// One control message: a header of 16 bytes (length, level, type) and one descriptor, padded to 8.
const CONTROL_SIZE = 24;

/**
 * Makes a socket pair, hands one end to `send`, and returns the descriptor that came through the other
 * (SCM_RIGHTS) by the time `send` has finished.
 *
 * @throws ImgcredError MOUNT_FAILED when nothing came, or what `send` threw
 * @see unix(7), cmsg(3)
 */
export async function receiveDescriptor(send: (socket: number) => Promise<void>): Promise<number> {
  const pair = new Int32Array(2);
  checked(libc.socketpair(AF_UNIX, SOCK_STREAM, 0, ptr(pair)), 'socketpair');
  const [ours = -1, theirs = -1] = pair;
  try {
    await send(theirs);
    return takeDescriptor(ours);
  } finally {
    libc.close(ours);
    libc.close(theirs);
  }
}

function takeDescriptor(socket: number): number {
  const data = nativeBuffer(1024);
  const control = nativeBuffer(1024);
  const vector = nativeBuffer(1024);
  const message = nativeBuffer(1024);
  message.bytes.fill(0, 0, MSGHDR_SIZE);
  vector.view.setBigUint64(0, BigInt(data.address), true);
  vector.view.setBigUint64(8, 1n, true);
  message.view.setBigUint64(16, BigInt(vector.address), true);
  message.view.setBigUint64(24, 1n, true);
  message.view.setBigUint64(32, BigInt(control.address), true);
  message.view.setBigUint64(40, BigInt(CONTROL_SIZE), true);
  checked(libc.recvmsg(socket, message.address, MSG_DONTWAIT | MSG_CMSG_CLOEXEC), 'recvmsg from fusermount3');
  const whole = message.view.getBigUint64(40, true) >= 20n;
  if (!whole || peek.i32(control.address, 8) !== SOL_SOCKET || peek.i32(control.address, 12) !== SCM_RIGHTS) {
    throw new ImgcredError('MOUNT_FAILED', 'fusermount3 mounted but sent no descriptor');
  }
  return peek.i32(control.address, 16);
}
