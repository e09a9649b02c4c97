import { IndexError } from './error.ts';
import {
  FORMAT_VERSION,
  FORMAT_VERSION_WITHOUT_CONTENT_DIGESTS,
  HEADER,
  LAYER,
  MAGIC,
  RECORD_BYTES,
  SECTION_ALIGNMENT,
  SECTION_NAMES,
  SECTION_RECORD_BYTES,
  Section,
  type SectionName,
} from './format.ts';
import { readI64 } from './growable-bytes.ts';

/** Where a section lies in the file, in bytes. */
export interface SectionRange {
  readonly offset: number;
  readonly length: number;
}
export type Sections = Readonly<Record<SectionName, SectionRange>>;

const MOST_SECTIONS = 64;
const LAYER_TEXTS = [
  [LAYER.digestOffset, LAYER.digestLength],
  [LAYER.diffIdOffset, LAYER.diffIdLength],
  [LAYER.mediaTypeOffset, LAYER.mediaTypeLength],
] as const;

export function corrupt(what: string): IndexError {
  return new IndexError('CORRUPT', `the image index is corrupt: ${what}`, {
    hint: 'remove the image and add it again, so that its index is built anew',
  });
}

/**
 * Checks the header and finds the sections; sections of unknown kind are left alone.
 * @throws IndexError CORRUPT, UNSUPPORTED
 */
export function readSections(bytes: Uint8Array): Sections {
  if (bytes.length < HEADER.sections) throw corrupt('it is shorter than its header');
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let i = 0; i < MAGIC.length; i++) {
    if (bytes[HEADER.magic + i] !== MAGIC.charCodeAt(i)) throw corrupt('it does not begin as an index does');
  }
  const version = view.getUint32(HEADER.version, true);
  if (version < FORMAT_VERSION || version > FORMAT_VERSION_WITHOUT_CONTENT_DIGESTS) {
    throw new IndexError(
      'UNSUPPORTED',
      `the image index has format version ${version}, not ${FORMAT_VERSION} or ${FORMAT_VERSION_WITHOUT_CONTENT_DIGESTS}`,
      {
        hint: 'it was written by another version of imgcred: remove the image and add it again',
      },
    );
  }
  if (readI64(view, HEADER.fileLength) !== bytes.length)
    throw corrupt('its length is not what its header says');
  const count = view.getUint32(HEADER.sectionCount, true);
  const end = HEADER.sections + count * SECTION_RECORD_BYTES;
  if (count > MOST_SECTIONS || end > bytes.length) throw corrupt('its section table does not fit');
  const found = new Map<number, SectionRange>();
  for (let at = HEADER.sections; at < end; at += SECTION_RECORD_BYTES) {
    const kind = view.getUint32(at, true);
    const offset = readI64(view, at + 8);
    const length = readI64(view, at + 16);
    const inside = offset >= end && length >= 0 && offset + length <= bytes.length;
    if (!inside || offset % SECTION_ALIGNMENT !== 0 || found.has(kind))
      throw corrupt(`section ${kind} does not fit`);
    const name = SECTION_NAMES.find((candidate) => Section[candidate] === kind);
    if (name !== undefined) {
      const record = RECORD_BYTES[name];
      if (view.getUint32(at + 4, true) !== record || length % record !== 0)
        throw corrupt(`section ${kind} has odd records`);
    }
    found.set(kind, { offset, length });
  }
  const section = (name: SectionName): SectionRange => {
    const range = found.get(Section[name]);
    if (range === undefined) throw corrupt(`the section of its ${name} is missing`);
    return range;
  };
  const sections: Sections = {
    inodes: section('inodes'),
    entries: section('entries'),
    names: section('names'),
    xattrs: section('xattrs'),
    extents: section('extents'),
    digests: section('digests'),
    layers: section('layers'),
    spans: section('spans'),
    windows: section('windows'),
  };
  const inodes = view.getUint32(HEADER.inodeCount, true);
  const layers = view.getUint32(HEADER.layerCount, true);
  if (inodes === 0 || inodes * RECORD_BYTES.inodes !== sections.inodes.length)
    throw corrupt('it has a wrong number of inodes');
  if (layers * RECORD_BYTES.layers !== sections.layers.length)
    throw corrupt('it has a wrong number of layers');
  checkLayerTable(view, sections, layers);
  return sections;
}

/** The layer table is read on opening, so its bounds are checked on opening too: it is short. */
function checkLayerTable(view: DataView, sections: Sections, layers: number): void {
  for (let layer = 0; layer < layers; layer++) {
    const at = sections.layers.offset + layer * RECORD_BYTES.layers;
    for (const [offset, length] of LAYER_TEXTS) {
      if (view.getUint32(at + offset, true) + view.getUint16(at + length, true) > sections.names.length) {
        throw corrupt(`layer ${layer} has no name`);
      }
    }
    const spans = view.getUint32(at + LAYER.firstSpan, true) + view.getUint32(at + LAYER.spanCount, true);
    if (spans * RECORD_BYTES.spans > sections.spans.length) throw corrupt(`layer ${layer} has no spans`);
  }
}
