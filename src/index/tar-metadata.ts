import { type PaxRecord, paxInteger, paxTime, type Timestamp } from './pax.ts';
import type { TarHeader } from './tar-header.ts';

/** A value that Linux could not hold; the message says which. */
export class MetadataError extends Error {}

/** 2^32 - 1 means "leave it" to chown(2), so it is no id. */
const LARGEST_ID = 0xffff_fffe;
/** Linux packs a device number into 12 bits of major and 20 bits of minor. */
const LARGEST_MAJOR = 0xfff;
const LARGEST_MINOR = 0xf_ffff;

/** Each entry that has records of its own goes through all global ones; tools write one or two. */
const MOST_GLOBAL_RECORDS = 64;

/**
 * The PAX records that count for one entry: the global ones, overridden by its own. A record without value
 * takes back what a global one said.
 */
export class PaxState {
  private readonly global = new Map<string, Uint8Array>();
  private local: PaxRecord[] = [];
  private effective: Map<string, Uint8Array> = new Map();
  private stale = false;

  /** @throws MetadataError when there come to be too many */
  addGlobal(records: readonly PaxRecord[]): void {
    for (const { key, value } of records) {
      if (value.length === 0) this.global.delete(key);
      // A copy: as a view it would keep all of its header in memory.
      else this.global.set(key, value.slice());
    }
    if (this.global.size > MOST_GLOBAL_RECORDS)
      throw new MetadataError(`more than ${MOST_GLOBAL_RECORDS} global attributes stand before it`);
    this.stale = true;
  }

  addLocal(records: readonly PaxRecord[]): void {
    this.local = this.local.concat(records);
    this.stale = true;
  }

  /** Forgets what belonged to the entry that is done. */
  endEntry(): void {
    if (this.local.length === 0) return;
    this.local = [];
    this.stale = true;
  }

  get(key: string): Uint8Array | undefined {
    return this.values().get(key);
  }

  /** The entry's own records in their order. */
  get ownRecords(): readonly PaxRecord[] {
    return this.local;
  }

  get isEmpty(): boolean {
    return this.local.length === 0 && this.global.size === 0;
  }

  *records(): Generator<PaxRecord> {
    for (const [key, value] of this.values()) yield { key, value };
  }

  private values(): Map<string, Uint8Array> {
    if (this.stale) {
      this.effective = new Map(this.global);
      for (const { key, value } of this.local) {
        // An xattr may well be empty.
        if (value.length === 0 && !key.includes('xattr.')) this.effective.delete(key);
        else this.effective.set(key, value);
      }
      this.stale = false;
    }
    return this.effective;
  }
}

function integer(pax: PaxState, key: string, fallback: number): number {
  const value = pax.get(key);
  return value === undefined ? fallback : paxInteger(value, key);
}

/** @throws MetadataError, PaxError */
export function ownerOf(pax: PaxState, header: TarHeader): { uid: number; gid: number } {
  const uid = integer(pax, 'uid', header.uid);
  const gid = integer(pax, 'gid', header.gid);
  if (uid < 0 || uid > LARGEST_ID) throw new MetadataError(`its uid ${uid} is out of range`);
  if (gid < 0 || gid > LARGEST_ID) throw new MetadataError(`its gid ${gid} is out of range`);
  return { uid, gid };
}

/** @throws PaxError */
export function mtimeOf(pax: PaxState, header: TarHeader): Timestamp {
  const value = pax.get('mtime');
  return value === undefined ? { seconds: header.mtime, nanoseconds: 0 } : paxTime(value, 'mtime');
}

/** Bytes that the entry stores in the archive. @throws MetadataError, PaxError */
export function storedSizeOf(pax: PaxState, header: TarHeader): number {
  const size = integer(pax, 'size', header.size);
  if (size < 0) throw new MetadataError('its size is negative');
  return size;
}

/** The device number as Linux packs it (`new_encode_dev`). @throws MetadataError */
export function packedDevice(header: TarHeader): number {
  const { deviceMajor: major, deviceMinor: minor } = header;
  if (major < 0 || major > LARGEST_MAJOR || minor < 0 || minor > LARGEST_MINOR) {
    throw new MetadataError(`its device number ${major}:${minor} is out of range`);
  }
  return ((minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12)) >>> 0;
}
