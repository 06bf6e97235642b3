// The files of an agent, beneath the roots that its owner opened: look, fetch, bring, change.
import { useEffect, useState } from "preact/hooks";
import { useLoad } from "../../state/load";
import { may } from "../../state/session";
import { fail } from "../../state/toasts";
import { bytes, moment } from "../../ui/format";
import { Button, Empty, Failed, Skeleton } from "../../ui/kit";
import { Icon } from "../../ui/icon";
import { FileActions } from "./file-actions";
import { contentUrl, join, listFolder, operate, parent, type Entry } from "../../files/calls";
import { Uploads } from "../../files/uploads";
import { dropped } from "../../files/dropped";
import { addUploads } from "../../files/queue";

const key = (agent: string): string => `folder:${agent}`;

export function Files({ agent }: { agent: string }) {
  const [path, setPath] = useState(() => sessionStorage.getItem(key(agent)) ?? "/");
  const [over, setOver] = useState(false);
  const { data: entries, problem, reload } = useLoad(() => listFolder(agent, path), [agent, path]);
  useEffect(() => sessionStorage.setItem(key(agent), path), [agent, path]);
  const writes = may("files:write");
  const drop = async (event: DragEvent) => {
    event.preventDefault();
    setOver(false);
    if (event.dataTransfer) addUploads(agent, path, await dropped(event.dataTransfer), reload);
  };
  const pick = (event: Event) => {
    const input = event.currentTarget as HTMLInputElement;
    addUploads(agent, path, [...(input.files ?? [])].map((file) => ({ file, path: file.name })), reload);
    input.value = "";
  };
  const makeFolder = () => {
    const name = prompt("Name of the new folder");
    if (name) operate(agent, "mkdir", { path: join(path, name) }).then(reload, fail);
  };
  return (
    <div
      class={over ? "files over" : "files"}
      data-testid="files"
      onDragOver={(event) => {
        if (!writes) return;
        event.preventDefault();
        setOver(true);
      }}
      onDragLeave={() => setOver(false)}
      onDrop={(event) => void drop(event)}
    >
      <div class="filters">
        <Crumbs path={path} go={setPath} />
        {writes && (
          <>
            <Button small onClick={makeFolder}>
              New folder
            </Button>
            <label class="button small">
              Upload
              <input type="file" multiple class="hidden-input" onChange={pick} />
            </label>
          </>
        )}
      </div>
      <Uploads agent={agent} />
      {problem ? (
        <Failed problem={problem} retry={reload} />
      ) : !entries ? (
        <Skeleton rows={12} />
      ) : (
        <table class="table files-table">
          <thead>
            <tr>
              <th>Name</th>
              <th class="num">Size</th>
              <th class="wide">Mode</th>
              <th class="wide">Changed</th>
              <th>
                <span class="quiet">Actions</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {path !== "/" && (
              <tr>
                <td colSpan={5}>
                  <button type="button" class="link" onClick={() => setPath(parent(path))}>
                    <Icon name="up" /> ..
                  </button>
                </td>
              </tr>
            )}
            {entries.map((entry) => (
              <tr key={entry.name_base64 ?? entry.name}>
                <td>
                  <EntryName agent={agent} folder={path} entry={entry} go={setPath} />
                </td>
                <td class="num">{entry.kind === "file" ? bytes(entry.size) : "–"}</td>
                <td class="wide mono">{entry.mode}</td>
                <td class="wide num">{moment(new Date(entry.modified_ns / 1e6).toISOString())}</td>
                <td class="num">{writes && <FileActions agent={agent} folder={path} entry={entry} changed={reload} />}</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
      {entries?.length === 0 && (
        <Empty title="This folder is empty" command={`landline cp FILE ${agent}:${path}`}>
          {writes ? "Drop files here to upload them, or from your own terminal:" : "From your own terminal:"}
        </Empty>
      )}
    </div>
  );
}

type NameProps = { agent: string; folder: string; entry: Entry; go: (path: string) => void };

function EntryName({ agent, folder, entry, go }: NameProps) {
  const path = join(folder, entry.name);
  if (entry.name_base64) return <span title="Its name is no text; use the command line">{entry.name}</span>;
  if (entry.kind === "folder" || (entry.kind === "link" && entry.target)) {
    return (
      <button type="button" class="link" onClick={() => go(path)}>
        <Icon name="folder" /> {entry.name}
        {entry.target && <small> → {entry.target.name}</small>}
      </button>
    );
  }
  if (entry.kind !== "file") return <span>{entry.name}</span>;
  return (
    <a href={contentUrl(agent, path)} download={entry.name}>
      <Icon name="file" /> {entry.name}
    </a>
  );
}

function Crumbs({ path, go }: { path: string; go: (path: string) => void }) {
  const parts = path.split("/").filter(Boolean);
  return (
    <nav class="crumbs" aria-label="Folder">
      <button type="button" class="link" onClick={() => go("/")}>
        /
      </button>
      {parts.map((part, at) => (
        <button key={at} type="button" class="link" onClick={() => go(`/${parts.slice(0, at + 1).join("/")}`)}>
          {part}
          {at < parts.length - 1 && " /"}
        </button>
      ))}
    </nav>
  );
}
