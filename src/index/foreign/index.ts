export { type AnnouncedTable, announcedTable } from './announced.ts';
export type { ReadBytes } from './estargz.ts';
export { indexFromTable, type LayerTable } from './layer-table.ts';
export { fetchZtoc } from './ztoc.ts';
