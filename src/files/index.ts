export {
  moveDurably,
  removeAbandoned,
  removeTemporaries,
  replaceDurably,
  replaceSync,
  syncDirectory,
  temporaryName,
  writeDurably,
  writeDurablySync,
  writeNewFile,
} from './durable-file.ts';
