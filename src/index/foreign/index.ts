export { type AnnouncedTable, announcedTable } from './announced.ts';
export type { ReadBytes } from './estargz.ts';
export { readZtoc } from './ztoc.ts';
