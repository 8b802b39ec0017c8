# A message centre on SMPP 3.4, made of Net::SMPP. Prints its port, then each PDU that it gets as a line of JSON.
#
# What it does with a message depends on the end of the destination: 404 invalid destination, 500 system error, 058
# throttled the first time, 666 taken but reported undeliverable, 999 never answered; any other is delivered. Receipts
# come if they are asked for, in the text of a message; for numbers that end in 7 as optional parameters alone.
use strict;
use warnings;
use JSON::PP;
use Net::SMPP;

my ($password, $port) = @ARGV;
$| = 1;
my $json = JSON::PP->new->canonical;
my $listener = Net::SMPP->new_listen('127.0.0.1', smpp_version => 0x34, port => $port || 0, timeout => 60)
    or die "no listener: $!";
print $json->encode({ port => $listener->sockport }), "\n";
my ($messages, %throttled) = (0);

while (1) {
    my $link = $listener->accept or next;
    $link->set_version(0x34);
    while (my $pdu = $link->read_pdu) {
        my $seen = { cmd => $pdu->{cmd}, status => $pdu->{status}, seq => $pdu->{seq} };
        for my $name (qw(system_id password interface_version source_addr source_addr_ton source_addr_npi
            destination_addr dest_addr_ton dest_addr_npi esm_class data_coding registered_delivery)) {
            $seen->{$name} = $pdu->{$name} if defined $pdu->{$name};
        }
        $seen->{short_message} = unpack('H*', $pdu->{short_message}) if defined $pdu->{short_message};
        print $json->encode($seen), "\n";
        if ($pdu->{cmd} == 0x09) {    # bind_transceiver
            my $right = $pdu->{password} eq $password;
            $link->bind_transceiver_resp(system_id => 'smsc', seq => $pdu->{seq}, status => $right ? 0 : 0x0e);
            $link->enquire_link(async => 1) if $right;
        }
        elsif ($pdu->{cmd} == 0x04) { submit($link, $pdu); }
        elsif ($pdu->{cmd} == 0x15) { $link->enquire_link_resp(seq => $pdu->{seq}); }
        elsif ($pdu->{cmd} == 0x06) { $link->unbind_resp(seq => $pdu->{seq}); last; }
    }
    close $link;
}

sub submit {
    my ($link, $pdu) = @_;
    my $to = $pdu->{destination_addr};
    return if $to =~ /999$/;
    my $status = $to =~ /404$/ ? 0x0b : $to =~ /500$/ ? 0x08 : $to =~ /058$/ && !$throttled{$to}++ ? 0x58 : 0;
    my $id = sprintf '%x', 0xabc000 + ++$messages;
    $link->submit_sm_resp(message_id => $status ? '' : $id, status => $status, seq => $pdu->{seq});
    return if $status || !$pdu->{registered_delivery};
    my ($state, $number) = $to =~ /666$/ ? ('UNDELIV', 5) : ('DELIVRD', 2);
    my $text = "id:$id sub:001 dlvrd:001 submit date:2601010000 done date:2601010001 stat:$state err:000 text:";
    my %optional = $to =~ /7$/ ? (receipted_message_id => "$id\0", message_state => pack('C', $number)) : ();
    $link->deliver_sm(
        async => 1, source_addr => $to, destination_addr => $pdu->{source_addr}, esm_class => 0x04,
        short_message => %optional ? '' : $text, %optional,
    );
}
