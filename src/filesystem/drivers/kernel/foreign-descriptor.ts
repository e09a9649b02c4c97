import { checked, libc } from './libc.ts';

// The same numbers on every architecture (they came after the tables were unified).
const SYS_PIDFD_OPEN = 434;
const SYS_PIDFD_GETFD = 438;

/**
 * Duplicates descriptor `descriptor` of process `pid` into this one: how a supervisor comes to hold the
 * connection of a server that it did not start. Takes the right to trace that process. The duplicate is
 * close-on-exec.
 *
 * @throws ImgcredError MOUNT_FAILED when the process is gone or not ours to look into
 * @see pidfd_getfd(2)
 */
export function duplicateDescriptorOf(pid: number, descriptor: number): number {
  const process = checked(libc.syscall(SYS_PIDFD_OPEN, pid, 0, 0), `pidfd_open of process ${pid}`);
  try {
    const hint = 'run as the user that started it';
    return checked(
      libc.syscall(SYS_PIDFD_GETFD, process, descriptor, 0),
      `pidfd_getfd from process ${pid}`,
      hint,
    );
  } finally {
    libc.close(process);
  }
}
