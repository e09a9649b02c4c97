export {
  moveDurably,
  removeAbandoned,
  removeTemporaries,
  replaceDurably,
  syncDirectory,
  temporaryName,
  writeDurably,
  writeDurablySync,
  writeNewFile,
} from './durable-file.ts';
