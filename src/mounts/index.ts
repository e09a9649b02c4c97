export { MountClient } from './client.ts';
export { chooseDriver, type DriverChoice } from './driver.ts';
export type {
  MountRequest,
  MountServerSettings,
  MountServerTotals,
  MountStats,
  MountView,
  Pin,
  PlainMountRequest,
} from './messages.ts';
export { endIfIdle, type FoundMountServer, findOrStartMountServer } from './server-process.ts';
