export { type AnnouncedTable, announcedTable } from './announced.ts';
export type { ReadBytes } from './estargz.ts';
export type { TableLayer } from './table-layer.ts';
