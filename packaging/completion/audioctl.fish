# fish completion for audioctl; printed by `audioctl completion fish`

complete -c audioctl -f
complete -c audioctl -s h -l help -d 'show this help message and exit'
complete -c audioctl -n __fish_use_subcommand -l version -d 'show the version of audioctl alone and exit'
complete -c audioctl -l socket -r -F -d 'control socket of the daemon'
complete -c audioctl -l json -d 'print JSON, errors too, for scripts'

complete -c audioctl -n __fish_use_subcommand -a completion -d 'print a completion script for a shell'
complete -c audioctl -n '__fish_seen_subcommand_from completion; and not __fish_seen_subcommand_from bash zsh fish' -a 'bash zsh fish'

complete -c audioctl -n __fish_use_subcommand -a config -d 'check a configuration file'
complete -c audioctl -n '__fish_seen_subcommand_from config; and not __fish_seen_subcommand_from check' -a check
complete -c audioctl -n '__fish_seen_subcommand_from config; and __fish_seen_subcommand_from check' -F

complete -c audioctl -n __fish_use_subcommand -a doctor -d 'check the host and the daemon, and say what to type where something is wrong'
complete -c audioctl -n '__fish_seen_subcommand_from doctor' -l network -d 'also check that mirrors and indexes can be reached'

complete -c audioctl -n __fish_use_subcommand -a drain -d 'admit no new work and finish what runs'
complete -c audioctl -n '__fish_seen_subcommand_from drain' -l wait -d 'return when all that ran is finished'

complete -c audioctl -n __fish_use_subcommand -a events -d 'follow what happens, live'
complete -c audioctl -n '__fish_seen_subcommand_from events' -l model -x -a '(audioctl models --names 2>/dev/null)' -d 'only events of this model, by name or alias; may be repeated'

complete -c audioctl -n __fish_use_subcommand -a load -d 'bring models onto the device'
complete -c audioctl -n '__fish_seen_subcommand_from load' -l wait -l no-wait -d 'return when it is done, or with --no-wait when it is accepted; the daemon goes on'
complete -c audioctl -n '__fish_seen_subcommand_from load' -a '(audioctl models --names 2>/dev/null)'

complete -c audioctl -n __fish_use_subcommand -a models -d 'list the catalogue; install, verify or remove models'
complete -c audioctl -n '__fish_seen_subcommand_from models' -l names -d 'print names only'
complete -c audioctl -n '__fish_seen_subcommand_from models; and not __fish_seen_subcommand_from list pull verify remove path' -a 'list pull verify remove path'
complete -c audioctl -n '__fish_seen_subcommand_from models; and __fish_seen_subcommand_from list pull verify remove path' -a '(audioctl models --names 2>/dev/null)'

complete -c audioctl -n __fish_use_subcommand -a park -d 'take models off the device, weights kept in host memory'
complete -c audioctl -n '__fish_seen_subcommand_from park' -l wait -l no-wait -d 'return when it is done, or with --no-wait when it is accepted; the daemon goes on'
complete -c audioctl -n '__fish_seen_subcommand_from park' -a '(audioctl models --names 2>/dev/null)'

complete -c audioctl -n __fish_use_subcommand -a reload -d 'read the configuration again'

complete -c audioctl -n __fish_use_subcommand -a runtime -d 'list, install, verify or remove engines\' runtimes'
complete -c audioctl -n '__fish_seen_subcommand_from runtime' -l names -d 'print names only'
complete -c audioctl -n '__fish_seen_subcommand_from runtime; and not __fish_seen_subcommand_from list install verify remove' -a 'list install verify remove'
complete -c audioctl -n '__fish_seen_subcommand_from runtime; and __fish_seen_subcommand_from list install verify remove' -a '(audioctl runtime --names 2>/dev/null)'

complete -c audioctl -n __fish_use_subcommand -a say -d 'turn text into speech'
complete -c audioctl -n '__fish_seen_subcommand_from say' -s o -l output -r -F -d 'where to write it; - is standard output'
complete -c audioctl -n '__fish_seen_subcommand_from say' -l voice -x -d 'who says it (default: alloy)'
complete -c audioctl -n '__fish_seen_subcommand_from say' -l model -x -a '(audioctl models --names 2>/dev/null)' -d 'name or alias (default: tts-1)'
complete -c audioctl -n '__fish_seen_subcommand_from say' -l language -x -d 'what the text is in, where text and voice do not show it'
complete -c audioctl -n '__fish_seen_subcommand_from say' -l emotion -x -d 'such as \'happy 0.6, calm 0.2\', or a description; not for every model'
complete -c audioctl -n '__fish_seen_subcommand_from say' -l emotion-from -r -F -d 'a recording that sounds as it should'
complete -c audioctl -n '__fish_seen_subcommand_from say' -l seed -x -d 'equal numbers make equal sound'
complete -c audioctl -n '__fish_seen_subcommand_from say' -l speed -x -d '0.25 to 4, where 1 is the voice\'s own'
complete -c audioctl -n '__fish_seen_subcommand_from say' -l format -x -a 'mp3 opus aac flac wav pcm' -d 'default: from FILE\'s suffix; wav for standard output'
complete -c audioctl -n '__fish_seen_subcommand_from say' -l url -x -d 'base URL of the API; default: where the daemon says it listens'

complete -c audioctl -n __fish_use_subcommand -a status -d 'show models, memory and what failed'
complete -c audioctl -n '__fish_seen_subcommand_from status' -l ready -d 'show only whether new work is welcome; fail where it is not'
complete -c audioctl -n '__fish_seen_subcommand_from status' -l watch -d 'show it again every second, or so many seconds, until Ctrl-C'

complete -c audioctl -n __fish_use_subcommand -a subtitles -d 'write subtitles for films and recordings'
complete -c audioctl -n '__fish_seen_subcommand_from subtitles' -l format -x -a 'srt vtt' -d 'default: srt'
complete -c audioctl -n '__fish_seen_subcommand_from subtitles' -l language -x -d 'what is spoken, such as en or zh; default: detected'
complete -c audioctl -n '__fish_seen_subcommand_from subtitles' -l translate-to -x -d 'language of the subtitles; default: what is spoken'
complete -c audioctl -n '__fish_seen_subcommand_from subtitles' -l mode -x -a 'accurate fast' -d 'times of words by the aligner, or in proportion; default: its own'
complete -c audioctl -n '__fish_seen_subcommand_from subtitles' -l model -x -a '(audioctl models --names 2>/dev/null)' -d 'name or alias (default: whisper-1)'
complete -c audioctl -n '__fish_seen_subcommand_from subtitles' -l output -x -a '(__fish_complete_directories)' -d 'where to write them; default: beside each FILE'
complete -c audioctl -n '__fish_seen_subcommand_from subtitles' -l overwrite -d 'replace files that are there already'
complete -c audioctl -n '__fish_seen_subcommand_from subtitles' -l parallel -x -d 'most files at a time, up to 32 (default: 2)'
complete -c audioctl -n '__fish_seen_subcommand_from subtitles' -l url -x -d 'base URL of the API; default: where the daemon says it listens'
complete -c audioctl -n '__fish_seen_subcommand_from subtitles' -F

complete -c audioctl -n __fish_use_subcommand -a top -d 'watch models, memory, queue and rates, live'
complete -c audioctl -n '__fish_seen_subcommand_from top' -l once -d 'show it once, with rates since the daemon was started'
complete -c audioctl -n '__fish_seen_subcommand_from top' -l interval -x -d 'look so often (1)'

complete -c audioctl -n __fish_use_subcommand -a transcribe -d 'turn recordings into text'
complete -c audioctl -n '__fish_seen_subcommand_from transcribe' -l model -x -a '(audioctl models --names 2>/dev/null)' -d 'name or alias (default: whisper-1)'
complete -c audioctl -n '__fish_seen_subcommand_from transcribe' -l language -x -d 'such as en or zh; default: detected'
complete -c audioctl -n '__fish_seen_subcommand_from transcribe' -l format -x -a 'text json verbose_json srt vtt' -d 'default: text'
complete -c audioctl -n '__fish_seen_subcommand_from transcribe' -l output-dir -x -a '(__fish_complete_directories)' -d 'a file there for each, instead of standard output'
complete -c audioctl -n '__fish_seen_subcommand_from transcribe' -l url -x -d 'base URL of the API; default: where the daemon says it listens'
complete -c audioctl -n '__fish_seen_subcommand_from transcribe' -F

complete -c audioctl -n __fish_use_subcommand -a undrain -d 'admit work again after drain'

complete -c audioctl -n __fish_use_subcommand -a unload -d 'end models\' processes and free all their memory'
complete -c audioctl -n '__fish_seen_subcommand_from unload' -l force -d 'do not wait for running requests; they fail'
complete -c audioctl -n '__fish_seen_subcommand_from unload' -l wait -l no-wait -d 'return when it is done, or with --no-wait when it is accepted; the daemon goes on'
complete -c audioctl -n '__fish_seen_subcommand_from unload' -a '(audioctl models --names 2>/dev/null)'

complete -c audioctl -n __fish_use_subcommand -a version -d 'show the versions of audioctl and of the daemon'

complete -c audioctl -n __fish_use_subcommand -a voices -d 'store voices from recordings, list and remove them, speak with them'
complete -c audioctl -n '__fish_seen_subcommand_from voices' -l url -x -d 'base URL of the API; default: where the daemon says it listens'
complete -c audioctl -n '__fish_seen_subcommand_from voices; and not __fish_seen_subcommand_from list add remove say' -a 'list add remove say'

complete -c audioctl -n '__fish_seen_subcommand_from voices; and __fish_seen_subcommand_from list' -l url -x -d 'base URL of the API; default: where the daemon says it listens'

complete -c audioctl -n '__fish_seen_subcommand_from voices; and __fish_seen_subcommand_from add' -l consent -r -F -d 'a recording of the speaker\'s consent, or the id of one that is stored; no voice is stored without'
complete -c audioctl -n '__fish_seen_subcommand_from voices; and __fish_seen_subcommand_from add' -l language -x -d 'what the speaker speaks, such as en-US'
complete -c audioctl -n '__fish_seen_subcommand_from voices; and __fish_seen_subcommand_from add' -l transcript -x -d 'what is said in the recording'
complete -c audioctl -n '__fish_seen_subcommand_from voices; and __fish_seen_subcommand_from add' -l url -x -d 'base URL of the API; default: where the daemon says it listens'
complete -c audioctl -n '__fish_seen_subcommand_from voices; and __fish_seen_subcommand_from add' -F

complete -c audioctl -n '__fish_seen_subcommand_from voices; and __fish_seen_subcommand_from remove' -l url -x -d 'base URL of the API; default: where the daemon says it listens'

complete -c audioctl -n '__fish_seen_subcommand_from voices; and __fish_seen_subcommand_from say' -s o -l output -r -F -d 'where to write it; - is standard output'
complete -c audioctl -n '__fish_seen_subcommand_from voices; and __fish_seen_subcommand_from say' -l model -x -a '(audioctl models --names 2>/dev/null)' -d 'name or alias (default: tts-1)'
complete -c audioctl -n '__fish_seen_subcommand_from voices; and __fish_seen_subcommand_from say' -l language -x -d 'what the text is in, where text and voice do not show it'
complete -c audioctl -n '__fish_seen_subcommand_from voices; and __fish_seen_subcommand_from say' -l emotion -x -d 'such as \'happy 0.6, calm 0.2\', or a description; not for every model'
complete -c audioctl -n '__fish_seen_subcommand_from voices; and __fish_seen_subcommand_from say' -l emotion-from -r -F -d 'a recording that sounds as it should'
complete -c audioctl -n '__fish_seen_subcommand_from voices; and __fish_seen_subcommand_from say' -l seed -x -d 'equal numbers make equal sound'
complete -c audioctl -n '__fish_seen_subcommand_from voices; and __fish_seen_subcommand_from say' -l speed -x -d '0.25 to 4, where 1 is the voice\'s own'
complete -c audioctl -n '__fish_seen_subcommand_from voices; and __fish_seen_subcommand_from say' -l format -x -a 'mp3 opus aac flac wav pcm' -d 'default: from FILE\'s suffix; wav for standard output'
complete -c audioctl -n '__fish_seen_subcommand_from voices; and __fish_seen_subcommand_from say' -l url -x -d 'base URL of the API; default: where the daemon says it listens'

complete -c audioctl -n __fish_use_subcommand -a why -d 'tell why a model is where it is, and what it lacks to be ready'
complete -c audioctl -n '__fish_seen_subcommand_from why' -l all -d 'show all that is remembered, not only 12 moves'
complete -c audioctl -n '__fish_seen_subcommand_from why' -a '(audioctl models --names 2>/dev/null)'
