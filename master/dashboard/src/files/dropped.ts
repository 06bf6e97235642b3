// What was dropped on the page: files, and the files of folders under their paths.

export type Dropped = { file: File; path: string };

/// Files taken of one drop.
const MOST = 5_000;

export async function dropped(transfer: DataTransfer): Promise<Dropped[]> {
  // Entries must be taken before the first wait: the transfer is empty afterwards.
  const entries = [...transfer.items].map((item) => (item.kind === "file" ? item.webkitGetAsEntry() : null));
  const files = [...transfer.files];
  if (entries.every((entry) => !entry?.isDirectory)) return files.map((file) => ({ file, path: file.name }));
  const found: Dropped[] = [];
  for (const entry of entries) if (entry) await walk(entry, "", found);
  return found;
}

async function walk(entry: FileSystemEntry, folder: string, found: Dropped[]): Promise<void> {
  if (found.length >= MOST) return;
  const path = folder + entry.name;
  if (entry.isFile) {
    const file = await new Promise<File>((resolve, reject) => (entry as FileSystemFileEntry).file(resolve, reject));
    found.push({ file, path });
    return;
  }
  const reader = (entry as FileSystemDirectoryEntry).createReader();
  for (;;) {
    const batch = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject));
    if (batch.length === 0) return;
    for (const child of batch) await walk(child, `${path}/`, found);
  }
}
