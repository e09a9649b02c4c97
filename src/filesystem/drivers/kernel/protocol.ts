/**
 * The numbers of the FUSE protocol: operation codes, flags, structure sizes. All structures are little-endian
 * here (the driver refuses big-endian machines) and padded to 8 bytes by their own definition.
 *
 * @see Linux `include/uapi/linux/fuse.h`
 */

export const FUSE_MAJOR = 7;
/** The newest minor version whose structures this driver knows (Linux 6.18 speaks 7.45). */
export const FUSE_MINOR = 45;
/** Below this, INIT has no `max_pages` field that we rely on, and READDIRPLUS with cached symlinks is unsafe. */
export const FUSE_OLDEST_MINOR = 31;

export const IN_HEADER_SIZE = 40;
export const OUT_HEADER_SIZE = 16;
export const ENTRY_OUT_SIZE = 128;
export const ATTR_SIZE = 88;
export const ATTR_OUT_SIZE = 104;
export const DIRENT_HEADER_SIZE = 24;
export const OPEN_OUT_SIZE = 16;
export const STATFS_OUT_SIZE = 80;
export const STATX_OUT_SIZE = 288;
export const INIT_OUT_SIZE = 64;
export const GETXATTR_OUT_SIZE = 8;
export const LSEEK_OUT_SIZE = 8;

/** The most that one READ may ask for: `max_pages` 256 of 4,096 bytes. */
export const MAX_READ_SIZE = 256 * 4096;
/** The largest name that Linux passes (NAME_MAX), without its NUL. */
export const NAME_MAX = 255;
/** The largest extended attribute name (XATTR_NAME_MAX). */
export const XATTR_NAME_MAX = 255;
/** What read(2) on the device must offer: FUSE_MIN_READ_BUFFER, given that we negotiate `max_write` 4,096. */
export const REQUEST_BUFFER_SIZE = 16 * 1024;

export const Opcode = {
  LOOKUP: 1,
  FORGET: 2,
  GETATTR: 3,
  SETATTR: 4,
  READLINK: 5,
  SYMLINK: 6,
  MKNOD: 8,
  MKDIR: 9,
  UNLINK: 10,
  RMDIR: 11,
  RENAME: 12,
  LINK: 13,
  OPEN: 14,
  READ: 15,
  WRITE: 16,
  STATFS: 17,
  RELEASE: 18,
  FSYNC: 20,
  SETXATTR: 21,
  GETXATTR: 22,
  LISTXATTR: 23,
  REMOVEXATTR: 24,
  FLUSH: 25,
  INIT: 26,
  OPENDIR: 27,
  READDIR: 28,
  RELEASEDIR: 29,
  FSYNCDIR: 30,
  ACCESS: 34,
  CREATE: 35,
  INTERRUPT: 36,
  DESTROY: 38,
  BATCH_FORGET: 42,
  FALLOCATE: 43,
  READDIRPLUS: 44,
  RENAME2: 45,
  LSEEK: 46,
  COPY_FILE_RANGE: 47,
  TMPFILE: 51,
  STATX: 52,
} as const;

/** Operations that would change the image. */
export const WRITE_OPCODES: ReadonlySet<number> = new Set([
  Opcode.SETATTR,
  Opcode.SYMLINK,
  Opcode.MKNOD,
  Opcode.MKDIR,
  Opcode.UNLINK,
  Opcode.RMDIR,
  Opcode.RENAME,
  Opcode.RENAME2,
  Opcode.LINK,
  Opcode.WRITE,
  Opcode.SETXATTR,
  Opcode.REMOVEXATTR,
  Opcode.CREATE,
  Opcode.FALLOCATE,
  Opcode.COPY_FILE_RANGE,
  Opcode.TMPFILE,
]);

/** INIT flags, first word. */
export const InitFlag = {
  ASYNC_READ: 1 << 0,
  EXPORT_SUPPORT: 1 << 4,
  DO_READDIRPLUS: 1 << 13,
  READDIRPLUS_AUTO: 1 << 14,
  PARALLEL_DIROPS: 1 << 18,
  MAX_PAGES: 1 << 22,
  CACHE_SYMLINKS: 1 << 23,
  NO_OPENDIR_SUPPORT: 1 << 24,
  EXPLICIT_INVAL_DATA: 1 << 25,
  INIT_EXT: 1 << 30,
} as const;

/** INIT flags, second word (bits 32–63 of the kernel's list); it counts only beside INIT_EXT. */
export const InitFlag2 = {
  PASSTHROUGH: 1 << 5,
  HAS_RESEND: 1 << 7,
  ALLOW_IDMAP: 1 << 8,
} as const;

export const OpenFlag = {
  KEEP_CACHE: 1 << 1,
  CACHE_DIR: 1 << 3,
  NOFLUSH: 1 << 5,
  PASSTHROUGH: 1 << 7,
} as const;

/** The unique id of a request that the kernel repeats after a resend notification has this bit, in its high word. */
export const UNIQUE_RESEND_HIGH = 0x8000_0000;
export const NOTIFY_RESEND = 7;

/** `_IOW(229, 1, struct fuse_backing_map)` and `_IOW(229, 2, uint32_t)`. */
export const IOC_BACKING_OPEN = 0x4010_e501;
export const IOC_BACKING_CLOSE = 0x4004_e502;

/** Error numbers of Linux that replies carry (the same on every architecture that Bun runs on). */
export const Errno = {
  EPERM: 1,
  ENOENT: 2,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  EAGAIN: 11,
  EACCES: 13,
  EBUSY: 16,
  ENODEV: 19,
  ENOTDIR: 20,
  EISDIR: 21,
  EINVAL: 22,
  EROFS: 30,
  ERANGE: 34,
  ENAMETOOLONG: 36,
  ENOSYS: 38,
  ELOOP: 40,
  ENODATA: 61,
  EOPNOTSUPP: 95,
  ENOTCONN: 107,
  ESTALE: 116,
} as const;

export const S_IFMT = 0o170000;
export const S_IFREG = 0o100000;
export const S_IFDIR = 0o040000;
export const S_IFLNK = 0o120000;
